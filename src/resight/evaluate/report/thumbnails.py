"""Small pictures of the rows of an image set, to put inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from resight.data.imageset import ImageSet

SIDE = 96  # pixels of a thumbnail's longer side

LoadThumbnail = Callable[[int], "Image | None"]


def data_uri(picture: Image | None, side: int = SIDE, quality: int = 80) -> str:
    """The picture as a JPEG inside an address, its longer side at most `side` pixels.

    Empty where there is none.
    """
    if picture is None:
        return ""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def within(picture: Image | None, side: int, most: int) -> str:
    """As `data_uri`, at the best quality that takes at most `most` bytes, if one does."""
    text = ""
    for quality in (85, 70, 50, 30):
        text = data_uri(picture, side, quality)
        if len(text) <= most:
            break
    return text


def open_thumbnails(imageset: ImageSet, side: int = SIDE) -> LoadThumbnail:
    """Open a row's file, upright, cut out its box, make it small; None where that fails."""

    def load(row: int) -> Image | None:
        from PIL import Image as images
        from PIL import ImageOps

        from resight.data.decode import BadImage, content_of

        try:
            content = content_of(imageset.full_paths()[row])
            file = io.BytesIO(content) if isinstance(content, bytes) else content
            with images.open(file) as opened:
                picture = ImageOps.exif_transpose(opened)
                box = imageset.table["box"][row]
                if box is not None:
                    x1, y1, x2, y2 = box
                    picture = picture.crop((round(x1), round(y1), round(x2), round(y2)))
                if picture.mode in ("RGBA", "LA", "P"):  # what is transparent is shown on white
                    picture = picture.convert("RGBA")
                    ground = images.new("RGBA", picture.size, "white")
                    picture = images.alpha_composite(ground, picture)
                picture.thumbnail((side, side))
                return picture.convert("RGB")
        except (BadImage, OSError, ValueError, SyntaxError, images.DecompressionBombError):
            return None

    return load
