"""Evaluation folders read back: what `resight evaluate --out` wrote, for comparisons and pages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.data.imageset import ImageSet, normalise
from resight.data.places import with_moved
from resight.errors import UserError
from resight.files import read_json

SCORES = "scores.json"
IMAGES = "images.parquet"
PER_QUERY = "per_query.parquet"
_WHAT = "the scores of an evaluation"
_NEEDED = ("row", "path", "AP", "first_rank")
_RUN = "run.json"  # marks a training run
_METRIC = re.compile(r"mAP.*|mINP|R@\d+|mP@\d+")
_LEGACY = " legacy"  # ends the names of metrics of a legacy protocol


@dataclass(frozen=True)
class Record:
    """One evaluation folder.

    summaries, protocols: by protocol name, in the order of the file. A summary holds "protocol",
    "mAP", "R@1" ... as fractions, "intervals" and counts; a protocol is its values as a dictionary.
    """

    folder: Path
    when: str
    command: tuple[str, ...]
    data: Mapping[str, Any]
    job: Mapping[str, Any]
    origin: Mapping[str, Any]
    versions: Mapping[str, str]
    git: Mapping[str, Any]
    summaries: Mapping[str, Mapping[str, Any]]
    protocols: Mapping[str, Mapping[str, Any]]

    def per_query(self, protocol: str) -> pl.DataFrame:
        """One row a query: row, repeat, path, object, camera, ..., AP, INP, first_rank, ...

        Columns that a plain evaluation may lack (repeat, object, camera, right, wrong and their
        similarities) are filled in. Raises UserError: absent, damaged or without a needed column.
        """
        file = self.folder / protocol / PER_QUERY
        table = _read_parquet(file, "the results of the queries")
        lacking = [name for name in _NEEDED if name not in table.columns]
        if lacking:
            raise UserError(f"{file}: no column {lacking[0]}; evaluate again with this version")
        filled = {
            "repeat": pl.lit(0, pl.Int64),
            "object": pl.lit(None, pl.String),
            "camera": pl.lit(None, pl.String),
            "INP": pl.lit(None, pl.Float64),
            "right": pl.lit(None, pl.Int64),
            "wrong": pl.lit(None, pl.Int64),
            "right_similarity": pl.lit(None, pl.Float64),
            "wrong_similarity": pl.lit(None, pl.Float64),
        }
        return table.with_columns(
            value.alias(name) for name, value in filled.items() if name not in table.columns
        )

    def images(self) -> ImageSet:
        """The image set that was evaluated, whether or not its files are still there.

        Raises UserError: absent, or damaged.
        """
        file = self.folder / IMAGES
        table = _read_parquet(file, "the images of the evaluation")
        if "path" not in table.columns:
            raise UserError(f"{file}: no column path; evaluate again with this version")
        table = with_moved(table, file)
        source, layout = (str(self.data.get(name) or "") for name in ("source", "layout"))
        return ImageSet(normalise(table), self.folder, source, layout=layout)

    def interval(self, protocol: str, metric: str) -> tuple[float, float] | None:
        """The stored interval of a metric, or None where it has none."""
        ends = (self.summaries[protocol].get("intervals") or {}).get(metric)
        if ends is None or any(end is None or math.isnan(end) for end in ends):
            return None
        return float(ends[0]), float(ends[1])


def find_folders(path: Path) -> list[Path]:
    """The evaluation folders that a path names: itself, or those inside a training run.

    Raises UserError where there is none.
    """
    path = Path(path)
    if path.name == SCORES and path.is_file():
        return [path.parent]
    if not path.exists():
        raise UserError(f"{path}: not found; an evaluation folder was expected here")
    if (path / PER_QUERY).is_file() and (path.parent / SCORES).is_file():
        raise UserError(f"{path}: one protocol of an evaluation; give {path.parent}")
    if (path / SCORES).is_file():
        return [path]
    found = path.glob(f"*/{SCORES}") if path.is_dir() else ()
    inside = sorted(file.parent for file in found if (file.parent / IMAGES).is_file())
    if not inside:
        raise UserError(
            f"{path}: not an evaluation folder (no {SCORES}); 'resight evaluate --out' makes one"
        )
    return inside


def load_record(path: str | Path) -> Record:
    """Read an evaluation folder, or the only one inside a training run.

    Raises UserError: none there or several, damaged, or written by a version that knew less.
    """
    folders = find_folders(Path(path))
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise UserError(f"{path}: holds {len(folders)} evaluations ({names}); name one of them")
    return _load(folders[0])


def load_records(paths: Sequence[str | Path]) -> list[Record]:
    """Read all evaluation folders that these paths name, each once, in their order."""
    folders = {folder.resolve(): folder for path in paths for folder in find_folders(Path(path))}
    return [_load(folder) for folder in folders.values()]


def labels(records: Sequence[Record]) -> list[str]:
    """A short name for each record: as many of the last folders as tell them apart.

    Left out are last folders that all share, and those that say nothing: "evaluation", or the
    only evaluation inside a training run. Raises UserError when two records are the same folder.
    """
    folders = [record.folder.resolve() for record in records]
    for record, folder in zip(records, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"{record.folder}: given twice; compare different evaluations")
    telling = [
        folder.parent if folder.name == "evaluation" or (folder.parent / _RUN).is_file() else folder
        for folder in folders
    ]
    if len(set(telling)) < len(telling):
        telling = folders
    parts = [folder.parts for folder in telling]
    while len(parts) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def metrics(summary: Mapping[str, Any]) -> list[str]:
    """The names of a summary's metrics, in its order: its fractions; counts are whole numbers."""
    return [
        key
        for key, value in summary.items()
        if isinstance(value, float) or (_METRIC.fullmatch(key) and isinstance(value, int))
    ]


def primary(summary: Mapping[str, Any]) -> str:
    """The metric that a protocol is judged by."""
    known = [*metrics(summary), "mAP"]
    return str(summary.get("primary") or next((m for m in known if m.startswith("mAP")), known[0]))


def by_query(table: pl.DataFrame, metric: str) -> NDArray[np.float64] | None:
    """A metric of each query (Q,), NaN where it doesn't count; None where there is no such thing.

    mAP, however it is counted, is the mean of the column AP, mINP of INP, mP@k of P@k, R@k of
    first_rank <= k, and any other of the column of its name.
    """
    metric = metric.removesuffix(_LEGACY)
    if metric in table.columns and table[metric].dtype.is_float():
        return _floats(table[metric])
    if metric.startswith("mAP"):
        return _floats(table["AP"])
    if metric == "mINP":
        return _floats(table["INP"])
    if metric.startswith("mP@") and metric[1:] in table.columns:
        return _floats(table[metric[1:]])
    if metric.startswith("R@"):
        found = (table["first_rank"] <= int(metric[2:])).fill_null(False).to_numpy()
        return np.where(np.isnan(_floats(table["AP"])), np.nan, found)
    return None


def _floats(column: pl.Series) -> NDArray[np.float64]:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _load(folder: Path) -> Record:
    file = folder / SCORES
    content = read_json(file, _WHAT)
    other = UserError(f"{file}: not {_WHAT} as this version writes them; evaluate again")
    if not isinstance(content, dict):
        raise other
    scores, protocols = content.get("scores"), content.get("protocols")
    for values, key in ((scores, "protocol"), (protocols, "name")):
        if not isinstance(values, list) or not values:
            raise other
        if not all(isinstance(v, dict) and isinstance(v.get(key), str) for v in values):
            raise other
    assert isinstance(scores, list) and isinstance(protocols, list)
    summaries = {one["protocol"]: one for one in scores}
    named = {one["name"]: one for one in protocols}
    if list(summaries) != list(named) or len(named) < len(protocols):
        raise other
    return Record(
        folder=folder,
        when=str(content.get("when", "")),
        command=tuple(map(str, content.get("command") or ())),
        data=content.get("data") or {},
        job=content.get("job") or {},
        origin=content.get("origin") or {},
        versions=content.get("versions") or {},
        git=content.get("git") or {},
        summaries=summaries,
        protocols=named,
    )


def _read_parquet(file: Path, what: str) -> pl.DataFrame:
    if not file.is_file():
        raise UserError(f"{file}: not found; {what} were expected here")
    try:
        return pl.read_parquet(file, glob=False)  # a folder may be named "[1]"
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{file}: can't be read as Parquet ({first})") from None
