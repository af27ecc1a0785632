"""DeepFashion, consumer-to-shop (Liu et al., CVPR 2016): clothes as worn, and in their shops.

Eval/list_eval_partition.txt pairs consumer and shop images and says the split;
Anno/list_bbox_consumer2shop.txt names every image, its source and its box. Both begin with a count
and a header, and name images img/CLOTHING/Blouse/id_00000001/shop_01.jpg: the object is the
folder's id. Consumer images are queries, shop images the gallery. The validation half has the same
roles; its shop images are marked in `gallery_of_val`, as the benchmark's own notes add them to the
gallery of the test.

Img/img holds the images of the boxes, their long side 300 pixels. With the full-size images of
Img/img_highres, the boxes are scaled by the images' sizes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from resight.data.decode import BadImage, shape_of
from resight.data.layouts.layout import Count, Layout, boxed, numbered
from resight.errors import UserError

_PAIRS, _BOXES = "Eval/list_eval_partition.txt", "Anno/list_bbox_consumer2shop.txt"
# Full size first. Some unpack into the folder Img, some beside it.
_IMAGES = ("Img/img_highres/", "img_highres/", "Img/img/", "img/")
_SOURCES = {"1": "shop", "2": "consumer"}
_ROLES = {"shop": "gallery", "consumer": "query"}
_SCHEMA: dict[str, pl.DataType] = dict.fromkeys(
    ("path", "object", "split", "role", "source"), pl.String()
) | dict.fromkeys(("x1", "y1", "x2", "y2"), pl.Float64())
_LONG_SIDE = 300  # of the images that the boxes are given for


def read(folder: Path) -> pl.DataFrame:
    """The images of the objects that have a split; source (consumer, shop) and gallery_of_val.

    A box without area is left out. Raises UserError when a line of a list is broken.
    """
    splits = _splits(folder / _PAIRS)
    base = next(name for name in _IMAGES if (folder / name).is_dir())
    path = folder / _BOXES
    rows = []
    for line, (name, _, kind, *numbers) in numbered(path, 7, skip=2):
        try:
            x1, y1, x2, y2 = map(float, numbers)
            item, source = _item(name), _SOURCES[kind]
        except (ValueError, KeyError, IndexError):
            raise UserError(
                f"{path}, line {line}: not a path with an id, clothes type, source (1 or 2)"
                " and four numbers"
            ) from None
        if item in splits:
            split = splits[item]
            role = None if split == "train" else _ROLES[source]
            image = base + name.removeprefix("img/")
            rows.append((image, item, split, role, source, x1, y1, x2, y2))
    table = boxed(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))
    if "highres" in base:
        table = _full_size(folder, base, table)
    of_val = (pl.col("split") == "val") & (pl.col("role") == "gallery")
    return table.with_columns(gallery_of_val=of_val.fill_null(False))


def _item(name: str) -> str:
    item = name.split("/")[-2]
    if not item.startswith("id_"):
        raise ValueError(item)
    return item


def _splits(path: Path) -> dict[str, str]:
    """The split of every object."""
    splits: dict[str, str] = {}
    for line, (consumer, _, _, split) in numbered(path, 4, skip=2):
        try:
            item = _item(consumer)
        except (ValueError, IndexError):
            raise UserError(f"{path}, line {line}: no id in {consumer!r}") from None
        if split not in ("train", "val", "test"):
            raise UserError(f"{path}, line {line}: {split!r} is none of train, val, test")
        if splits.setdefault(item, split) != split:
            raise UserError(f"{path}, line {line}: {item} is {split} here, {splits[item]} before")
    return splits


def _full_size(folder: Path, base: str, table: pl.DataFrame) -> pl.DataFrame:
    """The table for full-size images: one folder is called otherwise, and boxes are scaled."""
    listed, released = "CLOTHING/Summer_Wear/", "CLOTHING/Summer_Suit/"
    if (folder / base / released).is_dir() and not (folder / base / listed).is_dir():
        path = pl.col("path").str.replace(base + listed, base + released, literal=True)
        table = table.with_columns(path)

    def scale(path: str) -> float | None:
        try:
            return max(shape_of(folder / path)) / _LONG_SIDE
        except BadImage:
            return None  # it can't be used anyway, and is reported as any other

    with ThreadPoolExecutor(8) as pool:
        scales = pl.Series(pool.map(scale, table["path"]), dtype=pl.Float64)
    return table.with_columns(box=pl.when(scales.is_not_null()).then(pl.col("box") * scales))


LAYOUT = Layout(
    name="deepfashion",
    title="DeepFashion consumer-to-shop",
    page="https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html",
    terms="non-commercial research, on request",
    parts=(_PAIRS, _BOXES, " or ".join(_IMAGES)),
    signature=(_BOXES,),
    counts=(  # the notes of the release
        Count("images", (239_557,), pl.lit(True)),
        Count("objects", (33_881,), pl.lit(True), objects=True),
    ),
    read=read,
)
