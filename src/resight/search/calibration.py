"""Not in the gallery: a bound on the rate of false matches, learned from the gallery itself.

For each calibration image i of an object o: s_i, its best similarity to any other object, that is
what a search would find were o not in the gallery (search/left_out.py). A query whose best object
o* has the similarity s gets the conformal p-value

    p = (2 + sum over the objects o other than o* of c_o) / (1 + number of objects)

and is answered "no match" where p > alpha. Then an object that is not in the gallery is answered
with a match at a rate of at most alpha, whatever the model, the similarity and the number of
objects, as long as it is exchangeable with the gallery's (one more of their kind). Conformal
prediction: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World" (2005), ch. 2.

Why 2 and not 1: were the query's object in the gallery, o* would have it as a neighbour at s and
count, for sure. With that the query and the gallery's objects are treated alike: no other s_i
can rise to s by the query, because then it would be the query's best object.

c_o is, by `variant`:
    "drawn"  1 if s_i >= s for one image i of o, drawn once by a seed, else 0. The bound is exact
             where an object is one image. With several (the unknown object's others are missing)
             and with centroids the exchange is nearly one: see docs/not-in-the-gallery.md.
    "share"  the share of o's images with s_i >= s. It doesn't depend on a draw, but is an average
             of p-values, which is sure to be one only when doubled (Vovk & Wang, "Combining
             p-values via averaging", Biometrika 2020): the rate is at most 2 alpha for sure.
             benchmarks/calibration.py measures what it is.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Variant = Literal["drawn", "share"]
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Calibration:
    """What queries are held against.

    scores (M,) float64 and objects (M,) int64, sorted by score: one a calibrated object for
    "drawn", one an image for "share". The codes of objects may be any whole numbers (ids).
    """

    variant: Variant
    scores: Floats
    objects: Ints
    n_objects: int

    @property
    def smallest_alpha(self) -> float:
        """No p-value is lower, so nothing lower can be promised: 2 / (objects + 1)."""
        return 2 / (self.n_objects + 1)

    def p_values(self, similarity: Floats, own: Ints) -> Floats:
        """The p-value of each query (Q,) float64, from its best similarity and that object's code.

        similarity (Q,), -inf where nothing was found; own (Q,) int64, a code that is not among the
        calibrated objects (-1) where the best object is none of them: an object added since.
        Raises ValueError for NaN or other lengths.
        """
        similarity, own = np.asarray(similarity, np.float64), np.asarray(own, np.int64)
        if similarity.shape != own.shape or np.isnan(similarity).any():
            raise ValueError("similarity and own must be of one shape, without NaN")
        codes, counts, above, keys = self._lookup
        below = np.searchsorted(self.scores, similarity, side="left")
        # Of its own object: an image counts whose place in the order is not below the query's.
        code = np.minimum(np.searchsorted(codes, own), len(codes) - 1)
        width = len(self.scores) + 1
        mine = np.searchsorted(keys, (code + 1) * width) - np.searchsorted(
            keys, code * width + below
        )
        share = np.where(codes[code] == own, mine / counts[code], 0.0)
        # Rounded, so that three thirds are one object whatever they were summed with.
        total = np.round(above[below] - share, 9)
        return np.asarray(np.minimum((2 + total) / (1 + self.n_objects), 1.0))

    @cached_property
    def _lookup(self) -> tuple[Ints, Ints, Floats, Ints]:
        """Codes, images of each, objects' shares from each place on up, and (code, place) keys."""
        codes, code, counts = np.unique(self.objects, return_inverse=True, return_counts=True)
        above = np.r_[np.cumsum(1 / counts[code][::-1])[::-1], 0.0]
        keys = np.sort(code * (len(self.scores) + 1) + np.arange(len(self.scores)))
        return codes, counts, above, keys

    def check_alpha(self, alpha: float) -> None:
        """Raises UserError for a rate that can't be promised, with the smallest that can."""
        if not 0 < alpha < 1:
            raise UserError(f"alpha = {alpha:g}: a rate of false matches lies between 0 and 1")
        if alpha < self.smallest_alpha:
            needed = math.ceil(2 / alpha - 1 - 1e-9)
            can = f"{self.smallest_alpha:.4g} is the smallest that"
            if self.smallest_alpha >= 1:
                can = "nothing"
            raise UserError(
                f"alpha = {alpha:g}: a rate of false matches this low takes {needed} calibrated "
                f"objects, there are {self.n_objects}; {can} can be promised"
            )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, exactly: numbers as base64 of their 8 bytes, least first."""
        return {
            "format": FORMAT,
            "variant": self.variant,
            "n_objects": self.n_objects,
            "scores": _packed(self.scores, "<f8"),
            "objects": _packed(self.objects, "<i8"),
        }

    @staticmethod
    def from_dict(content: Any) -> Calibration:
        """What `to_dict` gave. Raises UserError when it is damaged or of another format."""
        try:
            if content["format"] != FORMAT or content["variant"] not in ("drawn", "share"):
                raise ValueError("another format")
            scores = _unpacked(content["scores"], "<f8").astype(np.float64)
            objects = _unpacked(content["objects"], "<i8").astype(np.int64)
            found = Calibration(content["variant"], scores, objects, int(content["n_objects"]))
            rising = bool((scores[1:] >= scores[:-1]).all()) and not np.isnan(scores).any()
            if len(scores) != len(objects) or not rising:
                raise ValueError("scores that are not in order")
            if len(np.unique(objects)) != found.n_objects:
                raise ValueError("objects that are not as many as said")
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:100]
            raise UserError(f"damaged calibration ({reason}); calibrate again") from None
        return found


def calibrate(
    scores: Floats, objects: Ints, variant: Variant = "drawn", seed: int = 0
) -> Calibration:
    """Learn from the calibration images' best similarities to other objects.

    scores (N,): s_i, -inf where an image has nothing to be compared with; objects (N,): whose image
    it is. The draw of "drawn" depends on the seed and the order of the images.

    Raises UserError for fewer than two objects, ValueError for NaN or other lengths.
    """
    scores, objects = np.asarray(scores, np.float64), np.asarray(objects, np.int64)
    if scores.shape != objects.shape or scores.ndim != 1 or np.isnan(scores).any():
        raise ValueError("scores and objects must be of one length, without NaN")
    n_objects = len(np.unique(objects))
    if n_objects < 2:
        raise UserError(f"a calibration takes 2 objects at least, there are {n_objects}")
    if variant == "drawn":
        rows = draw_one(objects, seed)
        scores, objects = scores[rows], objects[rows]
    order = np.lexsort((objects, scores))
    return Calibration(variant, scores[order], objects[order], n_objects)


def promise_kept(
    calibration: Calibration,
    other: Floats,
    other_object: Ints,
    objects: Ints,
    alphas: Sequence[float],
) -> list[dict[str, Any]]:
    """What a calibration gives on labelled queries whose own object is taken away.

    other, other_object (Q,): what each finds then (left_out.queries_other); objects (Q,): whose it
    is. A row an alpha: `alpha`, `rate` of false matches (the mean over objects of the share of
    their queries), its standard error `error`, `objects`, and `kept`: rate <= alpha + 2 errors,
    the calibration's own chance counted. Not kept: these queries are of another kind than the
    gallery's photos; calibrate with queries. Raises UserError without queries.
    """
    if not len(objects):
        raise UserError("no labelled query to hold the calibration against")
    p = calibration.p_values(other, other_object)
    _, place, counts = np.unique(objects, return_inverse=True, return_counts=True)
    rows = []
    for alpha in alphas:
        shares = np.bincount(place, ~no_match(p, alpha)) / counts
        n = len(shares)
        by_draw = float(shares.var()) / n
        chance = alpha * (1 - alpha) * (1 / n + 1 / calibration.n_objects)
        rate, error = float(shares.mean()), max(by_draw, chance) ** 0.5
        row = {"alpha": alpha, "rate": rate, "error": error, "objects": n}
        rows.append(row | {"kept": rate <= alpha + 2 * error})
    return rows


def draw_one(objects: Ints, seed: int) -> Ints:
    """Rows (P,) of one image of each object (N,), by rising code."""
    order = np.lexsort((np.random.default_rng(seed).random(len(objects)), objects))
    first = np.r_[True, np.diff(objects[order]) != 0] if len(order) else np.zeros(0, np.bool_)
    return np.asarray(order[first], np.int64)


def no_match(p: Floats, alpha: float) -> Bools:
    """(Q,) bool: whether a query is answered "no match": p > alpha."""
    return np.asarray(np.asarray(p) > alpha)


def _packed(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode()


def _unpacked(text: str, dtype: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype)
