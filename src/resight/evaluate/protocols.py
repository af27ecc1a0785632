"""A protocol says who queries, what is gallery, what is junk, and how it is counted.

"mAP" alone is seven quantities; a protocol is a value that is printed and stored with each
number. catalogue.py has the benchmarks' own, `choose` picks the one an image set asks for, and
rules/truth.py turns it into lists of positives and junk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl
import yaml
from pydantic import TypeAdapter, ValidationError

from resight.errors import UserError
from resight.evaluate.metrics import ApKind, Divisor
from resight.evaluate.ranking.result import Ties
from resight.settings import read_yaml

Level = Literal["image", "object"]
Mode = Literal["query-gallery", "leave-one-out"]
Crop = Literal["box", "none"]
CUTOFFS = (1, 5, 10, 20, 50)
_CHOICES = {
    "mode": Mode, "level": Level, "ap": ApKind, "ap_divisor": Divisor, "ties": Ties, "crop": Crop
}  # fmt: skip
_NAME = re.compile(r"(?!\.|scores\.json$|report\.html$|images\.parquet$)[^/\\\x00-\x1f]+")
_TUPLES = ("cutoffs", "precisions", "positives", "junk", "multi_query", "scales", "notes")
_AT_LEAST_ONE = ("min_images", "repeats", "ap_at", "gallery_images", "size")


@dataclass(frozen=True)
class Protocol:
    """Everything that decides what a number means.

    Who takes part:
    mode: "query-gallery" (by the images' roles) or "leave-one-out" (every image queries all
    others). level: the gallery is one vector an image, or one centroid an object. split: the rows
    that take part, None for all. rows, queries: of these rows, or of the queries alone, only those
    where a column is true ("small") or has a value ("usage=public"). gallery: rows that are
    searched besides, of any split or role, in the same form. within: a column; a query
    searches only the gallery rows of its own value. min_images: objects with fewer rows are left
    out. gallery_images: so many random rows of each object are the gallery (of those of role
    gallery; with leave-one-out the rest of the rows query), drawn `repeats` times from `seed`.

    What is right:
    positives, junk: columns of the query rows that list gallery rows by their `name` (a gallery
    image may then match many queries); without positives the rows of the same object are right.
    cross_camera: Market-1501's junk rule; a gallery image of the query's object taken by the
    query's camera is removed for that query (Zheng et al., ICCV 2015).

    Vectors: templates: a column; rows of one value are averaged to one vector (IJB-C's videos).
    multi_query: columns; query rows that agree in them are averaged to one query. legacy: the
    centroid gallery of CTL's released code (rules/legacy.py). crop, size, resize, scales: how
    images are embedded, where an embedder is given: cut to their box or whole, pixels, "stretch",
    "crop" or "fit"; None leaves it to the embedder.

    How it is counted: ap, ap_at, ap_divisor: see `metrics.average_precision`; cutoffs: the K of
    R@K; precisions: the k of mP@k, see `metrics.precision_at`; ties; pairs: also micro AP and TPR
    at FPR over all pairs; open_set: queries without a match stay and count as such. `notes` say
    why it was chosen so and take no part in comparisons.

    A second look: rerank: a chain of `resight.graph.rerank`, as "kreciprocal:k1=10+spatial";
    transductive: all queries together with the gallery, where each is else alone with it.
    """

    mode: Mode
    name: str = ""
    level: Level = "image"
    cross_camera: bool = False
    split: str | None = None
    rows: str | None = None
    queries: str | None = None
    gallery: str | None = None
    within: str | None = None
    min_images: int = 1
    gallery_images: int | None = None
    repeats: int = 1
    seed: int = 0
    positives: tuple[str, ...] = ()
    junk: tuple[str, ...] = ()
    templates: str | None = None
    multi_query: tuple[str, ...] = ()
    legacy: bool = False
    crop: Crop = "box"
    size: int | tuple[int, int] | None = None
    resize: str | None = None
    scales: tuple[float, ...] | None = None
    ap: ApKind = "rectangular"
    ap_at: int | None = None
    ap_divisor: Divisor = "relevant"
    cutoffs: tuple[int, ...] = CUTOFFS
    precisions: tuple[int, ...] = ()
    ties: Ties = "by-id"
    pairs: bool = False
    open_set: bool = False
    rerank: str = ""
    transductive: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(allowed):
                choices = ", ".join(get_args(allowed))
                raise UserError(f"protocol: {name} {value!r} is none of {choices}")
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and (not _whole(number) or number < 1):
                    raise UserError(f"protocol: {name} {value!r} is not a whole number from 1 on")
        if not _whole(self.seed) or self.seed < 0:
            raise UserError(f"protocol: seed {self.seed!r} is not a whole number from 0 on")
        if not self.cutoffs or not all(_whole(k) and k > 0 for k in self.cutoffs):
            raise UserError(f"protocol: cutoffs {self.cutoffs!r} are not whole numbers from 1 on")
        if not all(_whole(k) and k > 0 for k in self.precisions):
            raise UserError(
                f"protocol: precisions {self.precisions!r} are not whole numbers from 1 on"
            )
        if self.legacy and not (self.level == "object" and self.cross_camera):
            raise UserError("protocol: legacy is a form of object level with cross_camera")
        explicit = bool(self.positives)
        if explicit and (self.level == "object" or self.cross_camera or self.templates):
            raise UserError(
                "protocol: listed positives go with image level, without cross_camera or templates"
            )
        if self.multi_query and (self.mode != "query-gallery" or explicit or self.templates):
            raise UserError("protocol: multi_query goes with query-gallery, by object, alone")
        if self.legacy and (self.multi_query or self.open_set or self.pairs):
            raise UserError("protocol: legacy knows none of multi_query, open_set and pairs")
        self._check_rerank()
        if self.name and not _NAME.fullmatch(self.name):
            raise UserError(
                f"protocol: name {self.name!r} can't name a folder: no / or \\, no dot first"
            )
        if not self.name:
            object.__setattr__(self, "name", self._derived_name())

    def _check_rerank(self) -> None:
        if self.rerank:
            from resight.graph.rerank import parse  # with what reads pictures: not for all

            chain = parse(self.rerank)
            object.__setattr__(self, "rerank", str(chain) if chain else "")
            if self.legacy or self.pairs:
                raise UserError("protocol: rerank goes without legacy and pairs")
            if self.transductive and chain.look is None:
                raise UserError(
                    f"protocol: {chain} can't be transductive; kreciprocal and diffusion can"
                )
        if self.transductive and not self.rerank:
            raise UserError("protocol: transductive goes with rerank")

    def _derived_name(self) -> str:
        parts: list[str] = ["cross-camera" if self.cross_camera else self.mode]
        if self.cross_camera and self.mode == "leave-one-out":
            parts.insert(0, "leave-one-out")
        parts += ["centroid"] * (self.level == "object") + ["legacy"] * self.legacy
        return "-".join(parts)

    @property
    def metric(self) -> str:
        """The name of its mean average precision: "mAP", "mAP@100", "mAP (trapezoidal)"."""
        at = "" if self.ap_at is None else f"@{self.ap_at}"
        divided = f" / {self.ap_divisor}" * (bool(at) and self.ap_divisor != "min")
        legacy = " legacy" * self.legacy
        return f"mAP{at}{divided}{' trapezoidal' * (self.ap == 'trapezoidal')}{legacy}"

    @property
    def title(self) -> str:
        """What is printed beside each number, in a few words."""
        words: list[str] = [self.mode]
        words += ["cross-camera"] * self.cross_camera
        words += [f"{self.rows} rows"] * bool(self.rows)
        words += [f"{self.queries} queries"] * bool(self.queries)
        words += [f"gallery with {self.gallery}"] * bool(self.gallery)
        words += [f"within {self.within}"] * bool(self.within)
        words += [f"positives {'+'.join(self.positives)}"] * bool(self.positives)
        words += [f"junk {'+'.join(self.junk)}"] * bool(self.junk)
        words += [f"averaged by {self.templates}"] * bool(self.templates)
        words += [f"queries averaged by {'+'.join(self.multi_query)}"] * bool(self.multi_query)
        words += [f"objects of {self.min_images} or more"] * (self.min_images > 1)
        if self.gallery_images is not None:
            words.append(f"{self.gallery_images} random gallery images an object")
            words.append(f"{self.repeats} draws from seed {self.seed}")
        words += ["open set"] * self.open_set
        words += [f"re-ranked by {self.rerank}"] * bool(self.rerank)
        words += ["TRANSDUCTIVE (with all other queries)"] * self.transductive
        words += ["LEGACY centroids of the released code"] * self.legacy
        return ", ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML; `from_dict` is the way back."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @staticmethod
    def from_dict(plain: Mapping[str, Any], where: str = "protocol") -> Protocol:
        """The protocol of a dictionary. Raises UserError when it holds an unknown name or value."""
        known = {f.name: f for f in fields(Protocol)}
        unknown = sorted(map(str, set(plain) - set(known)))
        if unknown or "mode" not in plain:
            wrong = f"unknown {', '.join(unknown)}" if unknown else "no mode"
            raise UserError(f"{where}: {wrong}; a protocol has {', '.join(sorted(known))}")
        values = {
            key: [value] if key in _TUPLES and isinstance(value, str | int) else value
            for key, value in plain.items()
        }
        try:
            return TypeAdapter(Protocol).validate_python(values)
        except ValidationError as error:
            fault = error.errors()[0]
            key = str(fault["loc"][0])
            message = fault["msg"][:1].lower() + fault["msg"][1:]
            raise UserError(f"{where}: {key} = {plain.get(key)!r}: {message}") from None
        except UserError as error:
            raise UserError(str(error).replace("protocol", where, 1)) from None

    def to_yaml(self) -> str:
        """The settings that differ from the defaults, as YAML."""
        defaults = Protocol(self.mode)
        plain = self.to_dict()
        kept = {
            key: value
            for key, value in plain.items()
            if key in ("mode", "name") or value != defaults.to_dict()[key]
        }
        text: str = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
        return text

    @staticmethod
    def read(path: Path) -> Protocol:
        """The protocol of a YAML file; its name is the file's unless it says one.

        Raises UserError when the file is absent or holds something else.
        """
        return Protocol.from_dict({"name": path.stem} | read_yaml(path), str(path))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def choose(
    table: pl.DataFrame, level: Level = "image", cross_camera: bool | None = None
) -> Protocol:
    """The protocol that an image set's table asks for; its camera rule may still be undecided.

    Its test rows where it has any, all rows where none has a split. By role where any of those
    rows has one, else leave one out. The cross-camera rule where cameras are known; True or False
    forces it.

    Raises UserError when there are only train and val rows.
    """
    splits = set(table["split"].drop_nulls().unique())
    if splits and "test" not in splits:
        raise UserError(
            f"nothing to evaluate: the rows are all {' or '.join(sorted(splits))}, none is test;"
            " mark test rows in the split column, or leave the column out"
        )
    rows = table.filter(split="test") if splits else table
    by_role = rows["role"].is_in(["query", "gallery"]).any()
    known = rows["camera"].null_count() < rows.height
    return Protocol(
        "query-gallery" if by_role else "leave-one-out",
        level=level,
        split="test" if splits else None,
        cross_camera=known if cross_camera is None else cross_camera,
    )


def at_level(protocol: Protocol, level: Level) -> Protocol:
    """The same protocol at another level, named after it."""
    if protocol.level == level:
        return protocol
    name = protocol.name.removesuffix("-centroid") + "-centroid" * (level == "object")
    return replace(protocol, level=level, name=name)


def condition(text: str, table: pl.DataFrame) -> pl.Expr:
    """The rows that "column" or "column=value" stands for.

    Raises UserError when there is no such column.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if name not in table.columns:
        have = ", ".join(table.columns)
        raise UserError(f"protocol: no column {name!r} for {text!r}; the image set has {have}")
    if equals:
        return (pl.col(name).cast(pl.String) == value).fill_null(False)
    if table.schema[name] == pl.Boolean:
        return pl.col(name).fill_null(False)
    yes = ["true", "yes", "1"]
    return pl.col(name).cast(pl.String).str.to_lowercase().is_in(yes).fill_null(False)
