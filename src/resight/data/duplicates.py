"""The same picture more than once: byte for byte, or saved again at another size or quality.

Found pairs are sorted into kinds, because only some of them harm: a copy that is in both train
and test makes scores too good, a copy under another object is a wrong label, a copy within one
object is usual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from resight.data.imageset import SPLITS, ImageSet

Array = np.ndarray[Any, np.dtype[Any]]
Pairs = dict[str, tuple[Array, Array]]  # kind -> rows, and for each a partner

# Kinds of pairs: (severity, and the end of a sentence that begins "the same picture stands").
KINDS = {
    "across-splits": (
        "error",
        "in an earlier split too; scores come out too good, take it out of one of the two",
    ),
    "across-objects": (
        "warning",
        "under another object too; one of the two labels is likely wrong",
    ),
    "query-in-gallery": (
        "warning",
        "in the query's own gallery; that hit needs no recognition, drop it from one side",
    ),
    "within-object": ("info", "once more under the same object; usual, but it adds nothing"),
    "without-object": ("info", "twice, and at least one of the two has no object"),
}
BITS = 8  # of 64 that the hashes of near duplicates may differ in
# Least correlation, and largest difference anywhere in standard deviations: of 16 x 16
# thumbnails, and of 32 x 32 ones, where a JPEG's noise is larger. Chosen on re-encoded photos,
# icons and line drawings against icons that differ in an eyebrow or a clock's hand.
_COARSE, _FINE = (0.985, 0.7), (0.975, 1.2)
_ALL_PAIRS = 16_384  # rows up to which all pairs of hashes are compared
_TABLES, _WINDOW = 8, 64
_BATCH = 65_536  # candidate pairs looked at in one go
_TRIES = 8  # closer looks a row gets at most


@dataclass(frozen=True)
class Labels:
    """Per row, (n,) integers: object, split (0 train, 1 val, 2 test), role; -1 where unknown."""

    object: Array
    split: Array
    role: Array

    @classmethod
    def of(cls, images: ImageSet) -> Labels:
        """The labels of an image set as integers."""
        table = images.table.select(
            pl.col("object").rank("dense").cast(pl.Int64).fill_null(-1),
            _code("split", SPLITS),
            _code("role", ("gallery", "query")),
        )
        return cls(*(table[name].to_numpy() for name in ("object", "split", "role")))


def _code(column: str, values: tuple[str, ...]) -> pl.Expr:
    numbers = {value: number for number, value in enumerate(values)}
    return pl.col(column).replace_strict(numbers, default=-1, return_dtype=pl.Int64)


def exact_duplicates(digest: Array, usable: Array, labels: Labels) -> Pairs:
    """Rows with equal `digest` (n, 2) uint64, by kind; `usable` (n,) bool says which count.

    Each row stands once a kind, with the first row of its group as its partner (for
    "across-splits" the first row of the earliest split).
    """
    table = pl.DataFrame(
        {
            "row": np.arange(len(digest)),
            "high": digest[:, 0],
            "low": digest[:, 1],
            "object": labels.object,
            "split": labels.split,
            "role": labels.role,
        }
    ).filter(usable)
    table = table.filter(pl.struct("high", "low").is_duplicated())
    known = pl.col("object") >= 0
    other = pl.col("object") != pl.col("first_object")
    found = {
        "across-splits": _stars(table.filter(pl.col("split") >= 0), ["split"], []).filter(
            pl.col("split") != pl.col("first_split")
        ),
        "across-objects": _stars(table.filter(known), [], []).filter(other),
        "query-in-gallery": _stars(
            table.filter(known & (pl.col("role") >= 0)), ["role"], ["object", "split"]
        ).filter(pl.col("role") != pl.col("first_role")),
        "within-object": _stars(table.filter(known), [], ["object"]),
        "without-object": _stars(table, [], []).filter(
            (pl.col("object") < 0) | (pl.col("first_object") < 0)
        ),
    }
    return {
        kind: (pairs["row"].to_numpy(), pairs["partner"].to_numpy())
        for kind, pairs in found.items()
    }


def _stars(table: pl.DataFrame, order: list[str], also: list[str]) -> pl.DataFrame:
    """Every row of a group but its first, with that first row's number and labels."""
    group = ["high", "low", *also]
    first = [
        pl.col(name).first().over(group).alias(f"first_{name}")
        for name in ("object", "split", "role")
    ]
    table = table.sort([*order, "row"]).with_columns(
        pl.col("row").first().over(group).alias("partner"), *first
    )
    return table.filter(pl.col("row") != pl.col("partner")).sort("row")


def near_duplicates(
    look: Array,
    thumb: Array,
    digest: Array,
    file: Array,
    usable: Array,
    labels: Labels,
    confirm: Callable[[int, int], bool],
) -> Pairs:
    """Rows that look the same without being the same bytes, by kind.

    `look` (n,) uint64 hashes propose pairs, `thumb` (n, 16, 16, 3) uint8 thumbnails decide,
    and pairs that would raise a warning or an error must pass `confirm(row, row)` too. Up to
    16,384 pictures all pairs of hashes are compared; beyond that the neighbours in eight sorted
    orders of the hashes, so that time grows like n log n. Copies of one file (`digest`, `file`)
    are not compared with each other. Each row stands once a kind.
    """
    rows = _one_of_each(digest, usable, labels)
    search = _Search(thumb, digest, file, labels, confirm)
    waiting: list[tuple[Array, Array]] = []
    count = 0
    for order, window in _orders(look, rows):
        hashes = look[order]
        for offset in range(1, min(window + 1, len(order))):
            close = np.flatnonzero(np.bitwise_count(hashes[:-offset] ^ hashes[offset:]) <= BITS)
            waiting.append((order[close], order[close + offset]))
            count += len(close)
            if count >= _BATCH:
                search.take(waiting)
                waiting, count = [], 0
    search.take(waiting)
    return search.found()


def _cosines() -> tuple[Array, Array, Array]:
    k = np.arange(32)
    basis = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / 64).astype(np.float32)
    waves = sorted(
        ((u, v) for u in range(8) for v in range(8) if u + v),
        key=lambda w: (w[0] ** 2 + w[1] ** 2, w),
    )
    return basis, np.array([u for u, _ in waves[:32]]), np.array([v for _, v in waves[:32]])


_BASIS, _U, _V = _cosines()


def perceptual_hash(thumbs: Array) -> Array:
    """(m, 32, 32, 3) uint8 thumbnails to (m,) uint64: alike pictures differ in few bits.

    Two bits for each of the 32 slowest waves of the grey picture's cosine transform: clearly
    positive, clearly negative. "Clearly" is above the median strength, so that the waves which
    a symmetrical or simple picture lacks are 00 and not the sign of rounding errors.
    """
    grey = thumbs.mean(3, dtype=np.float32)
    waves = (_BASIS @ grey @ _BASIS.T)[:, _U, _V]
    clear = np.median(np.abs(waves), axis=1, keepdims=True)
    bits = np.concatenate([waves > clear, waves < -clear], axis=1)
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)[:, 0]


def alike(a: Array, b: Array, limits: tuple[float, float] = _COARSE) -> Array:
    """Whether pairs of thumbnails (m, s, s, 3) uint8 show the same picture: (m,) bool.

    Brightness is set aside; then the correlation must be high *and* no single place may differ
    by more than some standard deviations (`limits`): two clocks that tell another time
    correlate to 0.98, but differ where the hands are.
    """
    x = a.reshape(len(a), -1).astype(np.float32)
    y = b.reshape(len(b), -1).astype(np.float32)
    x -= x.mean(1, keepdims=True)
    y -= y.mean(1, keepdims=True)
    x_std, y_std = np.sqrt((x * x).mean(1)), np.sqrt((y * y).mean(1))
    correlation = (x * y).mean(1) / np.maximum(x_std * y_std, 1e-6)
    worst = np.abs(x - y).max(1)
    return np.asarray((correlation > limits[0]) & (worst < limits[1] * np.minimum(x_std, y_std)))


def alike_in_detail(a: Array, b: Array) -> bool:
    """The closer look at one pair of thumbnails, (32, 32, 3) uint8."""
    return bool(alike(a[None], b[None], _FINE)[0])


def _outlines(thumb: Array) -> tuple[Array, Array]:
    """Outlines of (n, 16, 16, 3) thumbnails, to rule out most pairs at little cost.

    Block means of 4 x 4 pixels about the whole's mean, (n, 48) int16 in sixteenths, and standard
    deviations (n,). A block can't differ by more than its worst pixel does.
    """
    n = len(thumb)
    blocks, deviation = np.empty((n, 48), np.int16), np.empty(n, np.float32)
    for start in range(0, n, 8192):
        part = slice(start, start + 8192)
        full = thumb[part].astype(np.float32)
        full -= full.mean((1, 2, 3), keepdims=True)
        deviation[part] = full.std((1, 2, 3))
        means = full.reshape(-1, 4, 4, 4, 4, 3).mean((2, 4)).reshape(-1, 48)
        blocks[part] = np.round(means * 16)
    return blocks, deviation


def _one_of_each(digest: Array, usable: Array, labels: Labels) -> Array:
    """The first row of each picture, object and split: copies would only repeat the finding."""
    rows = np.flatnonzero(usable)
    table = pl.DataFrame(
        {
            "row": rows,
            "high": digest[rows, 0],
            "low": digest[rows, 1],
            "object": labels.object[rows],
            "split": labels.split[rows],
        }
    )
    kept = table.unique(["high", "low", "object", "split"], keep="first", maintain_order=True)
    return kept["row"].to_numpy()


def _orders(look: Array, rows: Array) -> list[tuple[Array, int]] | Any:
    """Orders of the rows, and how far apart in each the pairs to compare may stand."""
    if len(rows) <= _ALL_PAIRS:
        return [(rows, len(rows))]
    return _sorted_orders(look, rows)


def _sorted_orders(look: Array, rows: Array) -> Any:
    random = np.random.default_rng(0)
    bits = np.unpackbits(look[rows].view(np.uint8).reshape(-1, 8), axis=1)
    for _ in range(_TABLES):
        # Hashes that differ in few bits have, in some order of the bits, a long common head.
        shuffled = np.packbits(bits[:, random.permutation(64)], axis=1)
        key = np.ascontiguousarray(shuffled).view(">u8")[:, 0].astype(np.uint64)
        # Equal hashes in random order: a long run of them still meets across splits and objects.
        yield rows[np.lexsort((random.permutation(len(rows)), key))], _WINDOW


class _Search:
    """Sorts candidate pairs into kinds; remembers one partner a row and kind."""

    def __init__(
        self,
        thumb: Array,
        digest: Array,
        file: Array,
        labels: Labels,
        confirm: Callable[[int, int], bool],
    ):
        self._thumb, self._digest, self._file = thumb, digest, file
        self._labels, self._confirm = labels, confirm
        self._blocks, self._deviation = _outlines(thumb)
        n = len(file)
        self._partner = {kind: np.full(n, -1) for kind in KINDS if kind != "query-in-gallery"}
        self._tries = np.zeros(n, np.int32)

    def take(self, waiting: list[tuple[Array, Array]]) -> None:
        """Look at candidate pairs, in the order given."""
        if not waiting:
            return
        a = np.concatenate([pair[0] for pair in waiting])
        b = np.concatenate([pair[1] for pair in waiting])
        a, b = np.minimum(a, b), np.maximum(a, b)
        same = (self._file[a] == self._file[b]) | (self._digest[a] == self._digest[b]).all(1)
        needed = ~same & self._needed(a, b)
        a, b = a[needed], b[needed]
        for start in range(0, len(a), 8192):
            one, two = a[start : start + 8192], b[start : start + 8192]
            worst = np.abs(self._blocks[one] - self._blocks[two]).max(1)
            limit = _COARSE[1] * np.minimum(self._deviation[one], self._deviation[two])
            likely = worst < 16 * limit + 2  # two roundings
            one, two = one[likely], two[likely]
            if not len(one):
                continue
            keep = alike(self._thumb[one], self._thumb[two])
            self._remember(one[keep], two[keep])

    def found(self) -> Pairs:
        """Rows and partners of each kind, by row."""
        rows = {kind: np.flatnonzero(partner >= 0) for kind, partner in self._partner.items()}
        return {kind: (found, self._partner[kind][found]) for kind, found in rows.items()}

    def _kinds(self, a: Array, b: Array) -> dict[str, tuple[Array, Array, Array]]:
        """For each kind: which pairs are of it, the row to name, and its partner."""
        one, two = self._labels.object[a], self._labels.object[b]
        early, late = self._labels.split[a], self._labels.split[b]
        known = (one >= 0) & (two >= 0)
        crossing = (early >= 0) & (late >= 0) & (early != late)
        turned = crossing & (early > late)
        later, earlier = np.where(turned, a, b), np.where(turned, b, a)
        return {
            "across-splits": (crossing, later, earlier),
            "across-objects": (known & (one != two), b, a),
            "within-object": (known & (one == two), b, a),
            "without-object": (~known, b, a),
        }

    def _needed(self, a: Array, b: Array) -> Array:
        """Pairs that could name a row which has no partner of that kind yet."""
        needed = np.zeros(len(a), bool)
        for kind, (member, row, _) in self._kinds(a, b).items():
            needed |= member & (self._partner[kind][row] < 0)
        return needed

    def _remember(self, a: Array, b: Array) -> None:
        kinds = self._kinds(a, b)
        for kind in ("within-object", "without-object"):
            member, row, partner = kinds[kind]
            fresh = np.flatnonzero(member & (self._partner[kind][row] < 0))
            rows, first = np.unique(row[fresh], return_index=True)
            self._partner[kind][rows] = partner[fresh[first]]
        serious = [kinds["across-splits"], kinds["across-objects"]]
        stores = [self._partner["across-splits"], self._partner["across-objects"]]
        for pair in np.flatnonzero(serious[0][0] | serious[1][0]):
            open_kinds = [
                (store, row[pair], partner[pair])
                for store, (member, row, partner) in zip(stores, serious, strict=True)
                if member[pair] and store[row[pair]] < 0
            ]
            if not open_kinds or self._tries[b[pair]] >= _TRIES:
                continue
            self._tries[b[pair]] += 1
            if self._confirm(int(a[pair]), int(b[pair])):
                for store, row, partner in open_kinds:
                    store[row] = partner
