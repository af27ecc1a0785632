"""Revisited Oxford and Paris (Radenovic et al., CVPR 2018): landmarks, 70 queries each.

A folder with gnd_roxford5k.pkl or gnd_rparis6k.pkl (or the same as .json) and jpg/NAME.jpg.
Each query has a box and its own lists of gallery images: easy, hard and junk; all others are
wrong. So `object` stays empty. There is no training part.
"""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from resight.data.layouts.layout import GALLERY, QUERY, Count, Layout
from resight.errors import UserError

_LISTS = ("easy", "hard", "junk")
_NAMES = pl.List(pl.String())
_SCHEMA: dict[str, pl.DataType] = dict.fromkeys(
    ("path", "object", "split", "role", "name"), pl.String()
)
_SCHEMA |= {"box": pl.List(pl.Float64()), **dict.fromkeys(_LISTS, _NAMES)}


class _Plain(pickle.Unpickler):
    """Reads dicts, lists, text and numbers, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not plain data")


def read(folder: Path, file: str) -> pl.DataFrame:
    """Queries, then gallery. Raises UserError when the ground truth is broken."""
    path = next(p for p in (folder / f"{file}.pkl", folder / f"{file}.json") if p.is_file())
    try:
        with open(path, "rb") as stream:
            truth = json.load(stream) if path.suffix == ".json" else _Plain(stream).load()
    except Exception as error:  # a broken pickle raises almost anything
        raise UserError(f"{path}: can't be read as ground truth ({error})") from None
    gallery, queries, entries = (_part(truth, name, path) for name in ("imlist", "qimlist", "gnd"))
    if len(queries) != len(entries):
        raise UserError(f"{path}: {len(queries)} queries in qimlist, {len(entries)} in gnd")
    for name in (*gallery, *queries):
        if not isinstance(name, str) or not name.isprintable():
            raise UserError(f"{path}: {name!r} is no name of an image")
    rows: list[tuple[Any, ...]] = []
    for number, (name, entry) in enumerate(zip(queries, entries, strict=True)):
        try:
            box = [float(value) for value in entry["bbx"]]
            lists = [[_pick(gallery, index) for index in entry[part]] for part in _LISTS]
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: gnd[{number}] ({name}) is broken: {error!r}") from None
        rows.append((f"jpg/{name}.jpg", None, "test", "query", name, box, *lists))
    for name in gallery:
        rows.append((f"jpg/{name}.jpg", None, "test", "gallery", name, None, None, None, None))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _part(truth: object, name: str, path: Path) -> list[Any]:
    part = truth.get(name) if isinstance(truth, dict) else None
    if not isinstance(part, list):
        raise UserError(f"{path}: no list {name!r} in it, so it is not the ground truth")
    return part


def _pick(gallery: list[str], index: int) -> str:
    if index < 0:
        raise IndexError(f"index {index}")
    return gallery[index]


def _layout(name: str, title: str, images: int) -> Layout:
    file = f"gnd_{name}"
    either = f"{file}.pkl or {file}.json"
    return Layout(
        name=name,
        title=title,
        page="http://cmp.felk.cvut.cz/revisitop/",
        terms="photos of Flickr users, who keep their rights",
        parts=(either, "jpg/"),
        signature=(either,),
        counts=(  # table 1 of the paper, and the released files
            Count("query images", (70,), QUERY),
            Count("gallery images", (images,), GALLERY),
        ),
        read=partial(read, file=file),
    )


ROXFORD5K = _layout("roxford5k", "Revisited Oxford", 4_993)
RPARIS6K = _layout("rparis6k", "Revisited Paris", 6_322)
