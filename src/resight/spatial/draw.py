"""A picture of what matched: two pictures beside each other, and lines between them."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from PIL import Image, ImageDraw

from resight.spatial.local import LocalFeatures

_AGREE, _OTHER = (46, 160, 67), (207, 34, 46)  # green and red, told apart by their width too
_GAP = 8


def side_by_side(
    image_a: Image.Image,
    image_b: Image.Image,
    a: LocalFeatures,
    b: LocalFeatures,
    matches: NDArray[Any],
    inliers: NDArray[Any],
) -> Image.Image:
    """The two pictures at the size of their features, agreeing matches green, others thin and red.

    `matches` (m, 2) and `inliers` (m,) as `homography` gives them.
    """
    width = a.size[0] + _GAP + b.size[0]
    sheet = Image.new("RGB", (width, max(a.size[1], b.size[1])), "white")
    sheet.paste(image_a.convert("RGB").resize(a.size, Image.Resampling.LANCZOS), (0, 0))
    shift = a.size[0] + _GAP
    sheet.paste(image_b.convert("RGB").resize(b.size, Image.Resampling.LANCZOS), (shift, 0))
    pen = ImageDraw.Draw(sheet)
    for wanted, colour, wide in ((False, _OTHER, 1), (True, _AGREE, 2)):  # the good ones on top
        for (row, column), agrees in zip(matches.tolist(), inliers.tolist(), strict=True):
            if bool(agrees) == wanted:
                x, y = a.points[row].tolist()
                u, v = b.points[column].tolist()
                pen.line((x, y, u + shift, v), fill=colour, width=wide)
                for at_x, at_y in ((x, y), (u + shift, v)):
                    pen.ellipse((at_x - 2, at_y - 2, at_x + 2, at_y + 2), outline=colour)
    return sheet
