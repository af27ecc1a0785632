"""What stands beside an exported graph: its description in JSON, and a page to read."""

from __future__ import annotations

from typing import Any

from resight.models.embedder import Embedder
from resight.models.export.graph import INPUT, OUTPUT, Form

FILE, RECORD, CARD = "model.onnx", "export.json", "README.md"


def described(embedder: Embedder, form: Form, dtype: str) -> dict[str, Any]:
    """Input, output and preprocessing of a graph, in words and numbers for a program."""
    prepare = embedder.preprocess
    height, width = ("height", "width") if form.dynamic else prepare.size
    pixels = ["images", height, width, 3] if form.raw else ["images", 3, height, width]
    return {
        "file": FILE,
        "dtype": dtype,
        "input": {
            "name": INPUT,
            "type": "uint8" if form.raw else "float32",
            "shape": pixels,
            "colours": "RGB",
            "normalised": not form.raw,
        },
        "output": {
            "name": OUTPUT,
            "type": "float32",
            "shape": ["images", embedder.dim],
            "unit_length": False,
        },
        "preprocessing": {
            "upright": "turned as EXIF says, transparency on white, 8 bits RGB",
            "resize": prepare.resize,
            "size": list(prepare.size),
            "crop_margin": prepare.crop_margin,
            "interpolation": prepare.interpolation,
            "antialias": True,
            "normalise": "inside the graph" if form.raw else "(pixel / 255 - mean) / std",
            "mean": list(prepare.mean),
            "std": list(prepare.std),
        },
        "flip": form.flip,
        "scales": list(form.scales),
    }


_RESIZE = {
    "stretch": "picture = picture.resize(({width}, {height}), Image.Resampling.{filter})",
    "crop": "scale = {margin} * max({height} / picture.height, {width} / picture.width)\n"
    "near = round(picture.width * scale), round(picture.height * scale)\n"
    "near = max({width}, near[0]), max({height}, near[1])\n"
    "picture = picture.resize(near, Image.Resampling.{filter})\n"
    "left, top = (near[0] - {width}) // 2, (near[1] - {height}) // 2\n"
    "picture = picture.crop((left, top, left + {width}, top + {height}))",
    "fit": "# long side to {longest}, shape kept\n"
    "scale = {longest} / max(picture.size)\n"
    "size = tuple(max(1, round(side * scale)) for side in picture.size)\n"
    "picture = picture.resize(size, Image.Resampling.{filter})",
}


def page(record: dict[str, Any]) -> str:
    """README.md of an exported graph."""
    prepare, given = record["preprocessing"], record["input"]
    height, width = prepare["size"]
    resize = _RESIZE[prepare["resize"]].format(
        height=height,
        width=width,
        longest=max(height, width),
        margin=prepare["crop_margin"],
        filter=prepare["interpolation"].upper(),
    )
    lines = ["pixels = np.asarray(picture)[None]  # (1, H, W, 3) uint8"]
    if given["type"] != "uint8":
        lines = [
            f"mean, std = np.float32({prepare['mean']}), np.float32({prepare['std']})",
            "pixels = (np.float32(picture) / 255 - mean) / std",
            "pixels = pixels.transpose(2, 0, 1)[None].copy()  # (1, 3, H, W) float32",
        ]
    code = [
        "import numpy as np",
        "import onnxruntime",
        "from PIL import Image, ImageOps",
        "",
        f'session = onnxruntime.InferenceSession("{FILE}")',
        'picture = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")',
        resize,
        *lines,
        f'(vector,) = session.run(None, {{"{given["name"]}": pixels}})[0]',
        "vector /= np.linalg.norm(vector)  # cosine similarity is then a product",
    ]
    parity = record["parity"]
    told = [
        f"compared with torch on {parity['images']:,} images ({parity['from']})",
        f"largest difference of unit vectors {parity['largest']:.2g}, mean {parity['mean']:.2g}",
    ]
    if "mAP" in parity:
        ours, theirs = 100 * parity["mAP"]["onnx"], 100 * parity["mAP"]["torch"]
        told.append(f"mAP {ours:.2f} (torch {theirs:.2f}, percent)")
    sizes = "any height and width" if isinstance(given["shape"][1], str) else f"{height} x {width}"
    rows = {
        "backbone": record["backbone"],
        "input": f"`{given['name']}` {given['type']} {given['shape']}, {sizes}",
        "output": f"`{OUTPUT}` float32 {record['output']['shape']}, not of unit length",
        "numbers": record["dtype"],
        "embedder": record["embedder"][:16],
    }
    table = "| | |\n| --- | --- |\n" + "\n".join(f"| {k} | {v} |" for k, v in rows.items())
    return (
        "# An embedder of resight, for ONNX Runtime\n\nFrom a photo's pixels to its vector; "
        f"`{RECORD}` says the same for a program.\n\n{table}\n\n```python\n"
        + "\n".join(code)
        + "\n```\n\n## Compared\n\n"
        + "\n".join(f"- {line}" for line in told)
        + "\n"
    )
