"""Exact Street2Shop (Kiapour et al., ICCV 2015): street photos of clothes, and the shops' photos.

Of each of 11 categories, meta/json has retrieval_CATEGORY.json (all shop photos: photo, product),
train_pairs_CATEGORY.json and test_pairs_CATEGORY.json (street photos: photo, product, bbox).
Products are numbered in each category anew, so the object is CATEGORY/PRODUCT. The photos have to
be fetched from the shops, to images/ under their numbers (000000001.jpg); many are gone by now, and
only those that are there become rows.

Street photos of the test are queries; the gallery is every shop photo of a product that no training
pair shows. The shop photos of the training pairs are marked in `gallery_of_train`, for a gallery of
the whole retrieval file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from resight.data.layouts.layout import QUERY, Count, Layout, boxed
from resight.errors import UserError

_META = "meta/json/"
_NO_BOX = (None, None, None, None)
_SCHEMA: dict[str, pl.DataType] = (
    dict.fromkeys(("path", "object", "split", "role", "category", "source"), pl.String())
    | {"gallery_of_train": pl.Boolean()}
    | dict.fromkeys(("x1", "y1", "x2", "y2"), pl.Float64())
)
_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")


def read(folder: Path) -> pl.DataFrame:
    """The photos that are there; category, source (street, shop) and gallery_of_train.

    A street photo whose box has no area is left out; what is listed twice counts once. Raises
    UserError when a file is broken or missing.
    """
    files = _photos(folder / "images")
    rows: list[tuple[Any, ...]] = []
    for path in sorted((folder / _META).glob("retrieval_*.json")):
        category = path.stem.removeprefix("retrieval_")
        trained = set()
        for split, role in (("train", None), ("test", "query")):
            for photo, product, box in _records(path.with_name(f"{split}_pairs_{category}.json")):
                if split == "train":
                    trained.add(product)
                if photo in files:
                    item = f"{category}/{product}"
                    rows.append((files[photo], item, split, role, category, "street", False, *box))
        for photo, product, _ in _records(path):
            if photo in files:
                item, seen = f"{category}/{product}", product in trained
                place = ("train", None) if seen else ("test", "gallery")
                rows.append((files[photo], item, *place, category, "shop", seen, *_NO_BOX))
    table = boxed(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))
    table = table.filter((pl.col("source") == "shop") | pl.col("box").is_not_null())
    return table.unique(["path", "box"], keep="first", maintain_order=True)


def _photos(folder: Path) -> dict[int, str]:
    """The photos that are there, by number: their paths."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, ending = os.path.splitext(entry.name)
            if ending.lower() in _ENDINGS and stem.isdecimal():
                found[int(stem)] = f"images/{entry.name}"
    return found


def _records(path: Path) -> Iterator[tuple[int, int, tuple[float | None, ...]]]:
    """Photo, product and x1, y1, x2, y2 (None in shop photos) of every entry of a file."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; every category has it") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error.reason})") from None
    if not isinstance(entries, list):
        raise UserError(f"{path}: not a list of photos")
    for number, entry in enumerate(entries, start=1):
        try:
            box = entry.get("bbox")
            corners: tuple[float | None, ...] = _NO_BOX
            if box is not None:
                left, top = float(box["left"]), float(box["top"])
                corners = (left, top, left + float(box["width"]), top + float(box["height"]))
            yield int(entry["photo"]), int(entry["product"]), corners
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                f"{path}, entry {number}: not a photo with its product (and bbox): {entry!r:.80}"
            ) from None


_SHOP = pl.col("source") == "shop"
LAYOUT = Layout(
    name="street2shop",
    title="Exact Street2Shop",
    page="http://www.tamaraberg.com/street2shop/",
    terms="research; the photos belong to the shops and the photographers",
    parts=(f"{_META}retrieval_*.json", "images/"),
    signature=(f"{_META}retrieval_*.json",),
    counts=(  # the paper's abstract and its table of the data
        Count("query images", (8_637,), QUERY),
        Count("query objects", (2_587,), QUERY, objects=True),
        Count("shop images", (404_683,), _SHOP),
        Count("shop objects", (204_795,), _SHOP, objects=True),
    ),
    read=read,
)
