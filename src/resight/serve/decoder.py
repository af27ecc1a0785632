"""The process that decodes photos of strangers: python -m resight.serve.decoder

Reads requests from stdin and writes answers to stdout, each a length (4 bytes), a JSON head of that
length, and as many bytes as the head says. It holds nothing worth stealing and may die.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import sys
from typing import IO, Any

from PIL import Image, UnidentifiedImageError

from resight.data.decode import FORMATS, BadImage, decode, upright_size
from resight.data.transforms import Preprocess

LENGTH = struct.Struct(">I")
MEMORY = 4 * 2**30
UNKNOWN = "not an image of a known format"


def write(file: IO[bytes], head: dict[str, Any], body: bytes = b"") -> None:
    """One message."""
    text = json.dumps(head | {"bytes": len(body)}).encode()
    file.write(LENGTH.pack(len(text)) + text)
    file.write(body)
    file.flush()


def read(file: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """One message; None at the end."""
    start = file.read(LENGTH.size)
    if len(start) < LENGTH.size:
        return None
    head = json.loads(file.read(LENGTH.unpack(start)[0]))
    return head, file.read(head["bytes"])


def answer(head: dict[str, Any], photo: bytes) -> tuple[dict[str, Any], bytes]:
    """A photo as the picture that the network takes: RGB, 8 bits, row by row.

    With "side" in the head it is one for people: a JPEG whose longer side has so many pixels. With
    "look" (`SpatialOptions`) it is what there is to see: points and descriptors.
    """
    side, look = int(head.get("side", 0)), head.get("look")
    plain = not side and look is None
    preprocess = Preprocess.model_validate(head["preprocess"]) if plain else None
    target = preprocess.decode_target if preprocess is not None else (side, side) if side else None
    try:
        found = _look(photo, head["pixels"], head["frames"])
        picture = decode(photo, box=head["region"], target=target, max_pixels=head["pixels"])
    except BadImage as error:
        return {"error": error.reason, "unknown": error.reason == UNKNOWN}, b""
    if look is not None:
        return _seen(picture, head["region"], look)
    if preprocess is None:
        return found, _jpeg(picture, side)
    small = preprocess.resized(picture)
    return found | {"shape": [small.height, small.width]}, small.tobytes()


def _jpeg(picture: Image.Image, side: int) -> bytes:
    """Never enlarged, and without what the file says of itself: place, camera, comments."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    small.info = {}
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85, optimize=True, progressive=True)
    return file.getvalue()


def _seen(
    picture: Image.Image, box: list[float] | None, look: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    from resight.search.verifying import seen_in  # OpenCV only where it is asked for
    from resight.spatial.local import SpatialOptions

    seen = seen_in(picture, box, SpatialOptions.model_validate(look))
    found = seen.features
    head = {"points": len(found), "dim": found.descriptors.shape[1], "size": list(found.size)}
    head |= {"scale": seen.scale.tolist(), "start": seen.start.tolist()}
    return head, found.points.tobytes() + found.descriptors.tobytes()


def _look(photo: bytes, pixels: int, frames: int) -> dict[str, Any]:
    """Format and upright size by the head alone. Raises BadImage for too many pixels or frames."""
    try:
        image = Image.open(io.BytesIO(photo), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage("", UNKNOWN) from None
    except Image.DecompressionBombError:
        raise BadImage("", f"more than {pixels:,} pixels") from None
    except Exception:  # decoders raise nearly anything on broken files
        raise BadImage("", UNKNOWN) from None
    with image:
        if image.width * image.height > pixels:
            raise BadImage("", f"more than {pixels:,} pixels")
        try:
            count = int(getattr(image, "n_frames", 1))
            width, height = upright_size(image)
        except Exception:
            raise BadImage("", "truncated or damaged") from None
        if count > frames:
            raise BadImage("", f"more than {frames:,} frames")
        return {"format": image.format, "width": width, "height": height}


def main() -> None:
    """Answer until stdin ends."""
    for kind, limit in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (soft, hard))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    source = sys.stdin.buffer
    write(out, {"ready": True})
    while (message := read(source)) is not None:
        try:
            head, body = answer(*message)
        except MemoryError:
            head, body = {"error": "not enough memory to decode it", "unknown": False}, b""
        except Exception:
            head, body = {"error": "can't be decoded", "unknown": False}, b""
        write(out, head, body)


if __name__ == "__main__":
    main()
