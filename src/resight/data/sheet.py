"""Contact sheets: pictures in rows, each with a caption and, where wanted, a coloured frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from resight.data.addresses import Place, place, to_open
from resight.data.decode import BadImage, decode

RIGHT, WRONG, PLAIN = "#1a9850", "#d73027", "#9a9a9a"
_INK, _PAPER, _EMPTY = "#222222", "#ffffff", "#eeeeee"


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet; `picture` None is drawn as an empty tile with the word `why`."""

    picture: Image.Image | None
    caption: str = ""
    frame: str | None = None
    why: str = "not readable"


class Opener:
    """Opens pictures for tiles, `side` pixels each, and keeps the paths that lead nowhere."""

    def __init__(self, side: int = 128):
        self._side = side
        self._opened: dict[str, bool] = {}  # path: whether it is there

    def tile(
        self, path: str | Place, box: Sequence[float] | None, caption: str, frame: str | None
    ) -> Tile:
        """The tile of a file, or an empty one that says whether it is gone or not readable."""
        path, there = to_open(path), True
        picture, why = None, "not readable"
        try:
            picture = decode(path, box=box, target=(self._side, self._side))
        except BadImage:
            there = place(path).exists()
            why = why if there else "file is gone"
        self._opened[str(path)] = there
        return Tile(picture, caption, frame, why)

    def notes(self) -> list[str]:
        """A line on the files that are gone: how many, and the first; none where none is."""
        gone = [path for path, there in self._opened.items() if not there]
        if not gone:
            return []
        return [
            f"{len(gone):,} of the {len(self._opened):,} photos on the sheet are gone, moved or "
            f"deleted (the first: {gone[0]})"
        ]


def contact_sheet(
    rows: Sequence[Sequence[Tile]], *, title: str = "", tile: int = 128, lines: int = 2
) -> Image.Image:
    """Draw rows of tiles, `tile` pixels each, with up to `lines` lines of caption below."""
    pad, frame, text = 6, 4, 14
    cell_w, cell_h = tile + 2 * (pad + frame), tile + 2 * frame + lines * text + 2 * pad
    top = 30 if title else 0
    width = max((len(row) for row in rows), default=1) * cell_w
    sheet = Image.new("RGB", (max(width, 320), top + len(rows) * cell_h + pad), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((pad, 6), _fit(title, sheet.width - 2 * pad, _font(16)), _INK, _font(16))
    for r, row in enumerate(rows):
        for c, item in enumerate(row):
            x, y = c * cell_w + pad, top + r * cell_h + pad
            _draw_tile(sheet, draw, item, x, y, tile, frame)
            for n, line in enumerate(item.caption.split("\n")[:lines]):
                place = (x, y + tile + 2 * frame + 1 + n * text)
                draw.text(place, _fit(line, tile + 2 * frame, _font(11)), _INK, _font(11))
    return sheet


def _draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, item: Tile, x: int, y: int, tile: int, frame: int
) -> None:
    outer = (x, y, x + tile + 2 * frame - 1, y + tile + 2 * frame - 1)
    draw.rectangle(outer, fill=item.frame or _EMPTY)
    draw.rectangle((x + frame, y + frame, x + frame + tile - 1, y + frame + tile - 1), fill=_EMPTY)
    if item.picture is None:
        draw.text((x + frame + 8, y + frame + tile // 2 - 8), item.why, "#888888", _font(12))
        return
    width, height = item.picture.size
    scale = tile / max(width, height)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = item.picture.resize(fitted, Image.Resampling.BILINEAR)
    offset = ((tile - small.width) // 2, (tile - small.height) // 2)
    sheet.paste(small, (x + frame + offset[0], y + frame + offset[1]))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # DejaVu comes with matplotlib and covers far more scripts than Pillow's built-in font.
    import matplotlib

    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size
    )


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text, its middle replaced by an ellipsis until it fits `width` pixels."""
    if font.getlength(text) <= width:
        return text
    keep = len(text) - 1
    while keep > 2 and font.getlength(_squeeze(text, keep)) > width:
        keep -= 1
    return _squeeze(text, keep)


def _squeeze(text: str, keep: int) -> str:
    head = keep // 3
    return text[:head] + "…" + text[len(text) - (keep - head) :]
