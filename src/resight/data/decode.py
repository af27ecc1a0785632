"""From a file to an upright RGB picture: formats, orientation, boxes, limits.

Files are hostile: only the formats of `FORMATS` are tried, and the number of pixels is checked
before any of them is decoded.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from resight.data.addresses import Address
from resight.data.stores import NotRead, fetch

# JPEG2000 and AVIF need a Pillow built with them, as the wheels are. JPEG stands for MPO too:
# Pillow registers no MPO of its own, and asking for it fails with a KeyError.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_PIXELS = 178_956_970  # Pillow's own hard limit; a 200 megapixel bomb is 600 MB of RGB
_ORIENTATION = 0x0112

# Our limit is checked for every file; Pillow's earlier warning would only repeat it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BadImage(Exception):
    """An image that can't be used. `path` and `reason` say which and why."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = "".join(path) if isinstance(path, Address) else str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:
        return BadImage, (self.path, self.reason)  # so that it crosses processes


def content_of(path: str | Path) -> str | Path | bytes:
    """What an image is decoded from: a file's own path, or the bytes at an address.

    For those who need it twice. Raises BadImage when the address can't be read.
    """
    if not isinstance(path, Address):
        return path
    try:
        return fetch(path)
    except NotRead as reason:
        raise BadImage(path, str(reason)) from None


def decode(
    source: str | Path | bytes,
    *,
    name: str | Path = "<bytes>",
    box: Sequence[float] | None = None,
    target: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode an image: first frame, upright (EXIF), RGB 8 bits, cropped to `box`.

    Transparent pixels become white. `box` is x1, y1, x2, y2 in pixels of the upright image and
    is clipped to it. `target` (height, width) allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of
    its size as long as the crop stays at least that large (the DCT's own scaling: faster, and
    an average, not a subsample). `name`: of bytes, in errors.

    Raises BadImage: missing, unreadable, truncated, more than `max_pixels`, box outside.
    """
    if not isinstance(source, bytes):
        name, source = source, content_of(source)
    try:
        return _decode(source, box, target, max_pixels)
    except BadImage as error:
        raise BadImage(name, error.reason) from None
    except (FileNotFoundError, NotADirectoryError):
        raise BadImage(name, "no such file") from None
    except PermissionError:
        raise BadImage(name, "permission denied") from None
    except IsADirectoryError:
        raise BadImage(name, "a folder, not a file") from None
    except UnidentifiedImageError:
        raise BadImage(name, "not an image of a known format") from None
    except Image.DecompressionBombError:
        raise BadImage(name, f"more than {max_pixels:,} pixels") from None
    except MemoryError:
        raise BadImage(name, "not enough memory to decode it") from None
    except Exception as error:  # decoders raise nearly anything on broken files
        reason = "truncated" if "truncated" in str(error).lower() else f"can't be decoded ({error})"
        raise BadImage(name, reason) from None


def _decode(
    source: str | Path | bytes,
    box: Sequence[float] | None,
    target: tuple[int, int] | None,
    max_pixels: int,
) -> Image.Image:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise BadImage("", f"{image.width} x {image.height} is more than {max_pixels:,} pixels")
        full_width, full_height = upright_size(image)
        shrunk = 1
        if target is not None and image.format in ("JPEG", "MPO"):
            width = (min(box[2], full_width) - max(box[0], 0)) if box else full_width
            height = (min(box[3], full_height) - max(box[1], 0)) if box else full_height
            shrink = min(width / target[1], height / target[0])
            if shrink >= 2:
                before = image.width
                drafted = image.draft("RGB", _request(image.size, shrink))
                if drafted is not None:
                    shrunk = round(before / drafted[1][2])
        image.load()
        upright = ImageOps.exif_transpose(image)
    picture = to_rgb(upright)
    if box is None:
        return picture
    left, top = max(0, math.floor(box[0] / shrunk)), max(0, math.floor(box[1] / shrunk))
    right = min(picture.width, math.ceil(box[2] / shrunk))
    bottom = min(picture.height, math.ceil(box[3] / shrunk))
    if right <= left or bottom <= top:
        numbers = ", ".join(f"{number:g}" for number in box)
        raise BadImage("", f"box {numbers} lies outside the {full_width} x {full_height} image")
    return picture.crop((left, top, right, bottom))


def shape_of(
    source: str | Path | bytes,
    box: Sequence[float] | None = None,
    *,
    name: str | Path = "<bytes>",
) -> tuple[int, int]:
    """(height, width) of the upright image, or of its box, from the file's header alone.

    Raises BadImage when the header can't be read.
    """
    if not isinstance(source, bytes):
        name, source = source, content_of(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = upright_size(image)
    except Exception as error:  # decoders raise nearly anything on broken files
        raise BadImage(name, f"can't be read ({error})") from None
    if box is not None:
        width, height = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
    return height, width


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) that an opened, not yet loaded image will have once it is upright."""
    turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    if turned and image.format != "TIFF":  # Pillow gives a TIFF's upright size from the start
        return image.height, image.width
    return image.size


def _request(size: tuple[int, int], shrink: float) -> tuple[int, int]:
    """The smallest size that `draft` may choose: a shrink by the power of two below."""
    power = 2 ** min(3, int(math.log2(shrink)))
    return (math.floor(size[0] / power), math.floor(size[1] / power))


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright picture of any mode as 8-bit RGB: transparency on white, 16 bits scaled down."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":  # 16 or 32 bits a pixel, one channel
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        top = values.max(initial=0)
        # 16-bit files use 0..65535 whatever their brightest pixel. Those of 32 bits don't say
        # what they hold: judged by the brightest, 16 bits, 8 bits or 0..1.
        sixteen = image.mode.startswith("I;16") or top > 255
        scale = 1 / 257 if sixteen else (255.0 if image.mode == "F" and top <= 1 else 1.0)
        eight = np.rint(np.clip(values * scale, 0, 255)).astype(np.uint8)
        return Image.fromarray(eight).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
