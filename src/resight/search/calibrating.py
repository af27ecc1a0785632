"""What a gallery learns about "not here": from its own objects, or from labelled queries.

The promise is calibration.py's; here it is taken from what the gallery keeps, kept with it, and
read back by a search. One calibration a level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.files import strict_json
from resight.search.calibration import Calibration, calibrate, promise_kept
from resight.search.engines.contract import Engine
from resight.search.isotonic import HitProbability, expected_calibration_error
from resight.search.left_out import Nearest, best_other, gaps, queries_other
from resight.search.operating import by_camera_pair, operating_points, plot_operating

ALPHA = 0.05
STALE = 0.1  # share of the gallery that may change before a calibration is called stale
_QUERIES = 20_000  # images that ask, at most


@dataclass(frozen=True)
class Known:
    """A calibration as it is kept: p-values, probabilities (None where no object has two images),
    and of what gallery."""

    calibration: Calibration
    probability: HitProbability | None
    record: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        content = {"calibration": self.calibration.to_dict()}
        likely = self.probability.to_dict() if self.probability is not None else None
        return content | {"probability": likely, "record": strict_json(self.record)}

    @staticmethod
    def from_dict(content: Any) -> Known:
        """What `to_dict` gave. Raises UserError when it is damaged."""
        try:
            parts = content["calibration"], content["probability"], dict(content["record"])
        except (KeyError, TypeError):
            raise UserError("damaged calibration; calibrate again") from None
        likely = HitProbability.from_dict(parts[1]) if parts[1] is not None else None
        return Known(Calibration.from_dict(parts[0]), likely, parts[2])

    def stale(self, images: int) -> float:
        """The share by which the gallery has grown or shrunk since, as a bound from below."""
        before = max(1, int(self.record["images"]))
        return abs(images - before) / before


def kept(engine: Engine, level: str) -> Known | None:
    """The calibration of a level, where there is one."""
    content = (engine.meta().get("calibration") or {}).get("object" if level == "both" else level)
    return None if content is None else Known.from_dict(content)


@dataclass(frozen=True)
class _Own:
    """The images of known objects: vectors (N, D), object ids (N,), codes from 0; cameras by name
    (N,), and as codes (-1 unknown) where the own one is to be left out."""

    vectors: NDArray[np.float32]
    ids: NDArray[np.int64]
    codes: NDArray[np.int64]
    names: list[str | None]
    cameras: NDArray[np.int64] | None


def calibrate_gallery(
    engine: Engine,
    level: str,
    *,
    queries: tuple[NDArray[np.float32], list[str | None]] | None = None,
    cross_camera: bool = False,
    alpha: float = ALPHA,
    seed: int = 0,
    plot: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Known:
    """Calibrate a level and keep it; what was measured stands in the record.

    `queries`: vectors (Q, D) of photos as they will be asked, and their objects (None: of
    something that is not in the gallery is not needed, and passed over). `plot`: a PNG of the
    operating points is written there. `cross_camera`: images of
    the query's own camera are no neighbours, as where searches leave it out.

    Raises UserError: fewer than two known objects, or none of them asked for.
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha = {alpha:g}: a rate of false matches lies between 0 and 1")
    own = _own(engine, cross_camera)
    found, codes, asked = _asked(own, level, seed)
    alone = found, codes
    record: dict[str, Any] = {"level": level, "images": engine.counts()[0], "queries": len(codes)}
    record |= {"from": "the gallery's own images", "seed": seed, "cross_camera": cross_camera}
    cameras = [own.names[row] for row in asked.tolist()]
    if queries is not None:
        cameras = []
        found, codes = _from_queries(own, level, engine, queries)
        record |= {"from": "query photos", "queries": len(codes)}
    ids = np.zeros(int(own.codes.max()) + 1, np.int64)
    ids[own.codes] = own.ids
    calibration = calibrate(found.other, ids[codes], "drawn", seed)
    possible = found.possible
    probability, error = _probability(found, codes, seed)
    known = found.similarity[possible, 0], found.right[possible, 0]
    points = operating_points(known[0], known[1], found.other)
    record |= {"objects": calibration.n_objects, "smallest_alpha": calibration.smallest_alpha}
    record |= {"expected_calibration_error": error, "operating_points": points}
    record["alpha"] = max(alpha, calibration.smallest_alpha)
    if record["alpha"] > alpha:
        tell(
            f"alpha {alpha:g} takes {int(np.ceil(2 / alpha - 1)):,} objects, there are "
            f"{calibration.n_objects:,}: {record['alpha']:.3g} is promised instead"
        )
    if len(set(cameras) - {None}) > 1:
        record["by_camera"] = _by_camera(found, cameras, record["alpha"])
    if plot is not None:
        plot_operating(known[0], known[1], found.other, plot, record["alpha"])
    if queries is not None:
        without = calibrate(alone[0].other, ids[alone[1]], "drawn", seed)
        nearest = np.where(found.other_object >= 0, ids[found.other_object], -1)
        kept_ = promise_kept(without, found.other, nearest, codes, [record["alpha"]])
        record["compared"] = _compared(alone[0], found) | {"without_queries": kept_[0]}
    known_ = Known(calibration, probability, record)
    with engine.writing("calibrating") as writer:
        content = dict(engine.meta().get("calibration") or {})
        writer.set_meta(calibration=content | {level: known_.to_dict()})
    return known_


def _own(engine: Engine, cross_camera: bool) -> _Own:
    parts = [
        (ids[groups > 0], groups[groups > 0], vectors[groups > 0])
        for ids, groups, vectors in engine.every_vector()
    ]
    groups = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.int64)
    if len(np.unique(groups)) < 2:
        raise UserError(
            f"{engine.name}: a calibration takes at least 2 known objects; add images with labels"
        )
    _, codes = np.unique(groups, return_inverse=True)
    table = engine.table(["camera"])
    by_id = dict(zip(table["id"], table.get("camera", []), strict=False))
    names = [by_id.get(id_) for part in parts for id_ in part[0].tolist()]
    cameras = None
    if cross_camera:
        seen: dict[str, int] = {}
        of = [-1 if name is None else seen.setdefault(name, len(seen)) for name in names]
        cameras = np.array(of, np.int64)
    vectors = np.concatenate([part[2] for part in parts])
    return _Own(vectors, groups, codes.astype(np.int64), names, cameras)


def _asked(
    own: _Own, level: str, seed: int
) -> tuple[Nearest, NDArray[np.int64], NDArray[np.int64]]:
    """The gallery's own images as queries, at most `_QUERIES`, evenly drawn; codes and rows."""
    rows = np.arange(len(own.codes))
    if len(rows) > _QUERIES:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_QUERIES])
    found = best_other(
        own.vectors,
        own.codes,
        level,  # type: ignore[arg-type]
        cameras=own.cameras,
        rows=rows,
    )
    return found, own.codes[rows], rows


def _by_camera(found: Nearest, cameras: list[str | None], alpha: float) -> list[dict[str, Any]]:
    """What comes of queries of each camera, at the threshold of all."""
    possible = found.possible
    known, right = found.similarity[possible, 0], found.right[possible, 0]
    threshold = operating_points(known, right, found.other, [alpha])[0]["threshold"]
    pairs = [(camera or "unknown", "any") for camera in cameras]
    of_known = [pairs[row] for row in np.flatnonzero(possible).tolist()]
    return by_camera_pair(known, right, of_known, found.other, pairs, threshold)


def _from_queries(
    own: _Own,
    level: str,
    engine: Engine,
    queries: tuple[NDArray[np.float32], list[str | None]],
) -> tuple[Nearest, NDArray[np.int64]]:
    vectors, objects = queries
    ids = np.unique(own.ids)
    names = engine.object_names(ids.tolist())
    code_of = {names[int(id_)]: code for code, id_ in enumerate(ids)}
    codes = np.array([code_of.get(name, -1) if name else -1 for name in objects], np.int64)
    if len(np.unique(codes[codes >= 0])) < 2:
        raise UserError(
            "none of the labelled queries is of an object of this gallery (or of one only); labels "
            "must be written as the gallery's are"
        )
    asked = codes >= 0
    found = queries_other(
        vectors[asked],
        codes[asked],
        own.vectors,
        own.codes,
        level,  # type: ignore[arg-type]
    )
    return found, codes[asked]


def _probability(
    found: Nearest, codes: NDArray[np.int64], seed: int
) -> tuple[HitProbability | None, float | None]:
    """The probability of a hit, and its calibration error on objects held out of the fit."""
    if not found.possible.any():
        return None, None
    gap = gaps(found.similarity)
    final = HitProbability.fit(found.similarity, gap, found.right, found.possible)
    objects = np.random.default_rng(seed).permutation(np.unique(codes))
    held = np.isin(codes, objects[: len(objects) // 2])
    if not (found.possible & held).any() or not (found.possible & ~held).any():
        return final, None
    half = HitProbability.fit(
        found.similarity[~held], gap[~held], found.right[~held], found.possible[~held]
    )
    chosen = held & found.possible
    guess = half(found.similarity[chosen], gap[chosen])
    return final, expected_calibration_error(guess[:, 0], found.right[chosen, 0])


def _compared(gallery: Nearest, asked: Nearest) -> dict[str, Any]:
    """Similarities to other objects, of gallery images and of queries: are they of one kind?"""
    both = gallery.other[np.isfinite(gallery.other)], asked.other[np.isfinite(asked.other)]
    return {
        "gallery_median": float(np.median(both[0])),
        "queries_median": float(np.median(both[1])),
    }
