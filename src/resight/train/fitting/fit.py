"""From a network and an image set to an embedder with the best closed form, in one pass.

With labels the candidates are compared on training objects held out, and the winner is fitted
again to all of them. Without, the default stands.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.features.compute import EmbedOptions, Progress
from resight.features.store import Features
from resight.features.write import embed_images
from resight.models.closed_form import Pair, project
from resight.models.depths import Depth, depths_of
from resight.models.embedder import Embedder
from resight.models.fitted import projected, unwhitened, whitened, with_parts
from resight.train.fitting.candidates import Candidate, Wish, with_labels, without_labels
from resight.train.fitting.plan import Plan
from resight.train.fitting.sums import Sums, columns_of
from resight.train.validate import held_out_scores

ANY, PLAIN = Wish(), EmbedOptions()


@dataclass(frozen=True)
class Scored:
    """A candidate, and its scores on the objects held out."""

    candidate: Candidate
    scores: dict[str, float]


@dataclass(frozen=True)
class Fitted:
    """The outcome: the embedder, what was chosen, and the candidates' scores, best first.

    `variances` (E,): of the projected rows that it was fitted to; None without a projection.
    `whole`: where the objects held out were left out of `embedder`, the same fitted to all.
    """

    embedder: Embedder
    chosen: Candidate
    table: tuple[Scored, ...]
    plan: Plan
    variances: NDArray[np.float64] | None = None
    whole: Embedder | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    skipped: tuple[dict[str, Any], ...] = ()


def fit(
    embedder: Embedder,
    plan: Plan,
    *,
    wish: Wish = ANY,
    again: bool = True,
    out: Path | None = None,
    options: EmbedOptions = PLAIN,
    progress: Progress = lambda done, total: None,
) -> Fitted:
    """Choose and fit a projection; `again`: to all training objects, once it is chosen.

    `embedder`: a backbone as it comes, or a trained embedder, which gets its projection at the
    end. `out`: where the features of all candidates are kept meanwhile (a call that was
    interrupted goes on); None for in memory.

    Raises UserError: no rows to fit to, or rows that are all the same.
    """
    base, found = _base(embedder)
    candidates = _candidates(found, plan, wish)
    probe = _probe(base, found, candidates)
    began = time.monotonic()
    features = embed_images(
        probe, plan.images, out, options=options, runtime="torch", progress=progress
    )
    seconds = time.monotonic() - began
    made = _fitted(base, probe, features, plan, candidates, again, options.scales)
    skipped = tuple(features.info.get("skipped", ()))
    return replace(made, skipped=skipped, seconds={"embedding": round(seconds, 1)} | made.seconds)


def fit_features(
    embedder: Embedder,
    features: Features,
    plan: Plan,
    *,
    wish: Wish = ANY,
) -> Fitted:
    """As `fit`, behind the features (N, D) of all rows of the set that was planned for.

    Raises UserError as `fit`, and when that embedder ends in a projection already.
    """
    if embedder.config.whiten is not None:
        raise UserError(
            "these features went through a fitted projection already; fit the embedder itself: "
            "resight fit EMBEDDER IMAGES"
        )
    scales = tuple(features.info.get("key", {}).get("scales", (1.0,)))
    ways = _candidates([], plan, wish)
    return _fitted(embedder, embedder, features.rows(plan.rows), plan, ways, True, scales)


def _fitted(
    base: Embedder,
    probe: Embedder,
    features: Features,
    plan: Plan,
    candidates: list[Candidate],
    again: bool,
    scales: tuple[float, ...],
) -> Fitted:
    began = time.monotonic()
    valid = np.asarray(features.valid)
    table: tuple[Scored, ...] = ()
    try:
        if len(candidates) > 1 and plan.val.any():
            table = _compared(probe, features, plan, valid, candidates)
            candidates = [table[0].candidate]
        both = valid & (plan.fit | plan.val)
        rows = both if again else valid & plan.fit
        sums, pair = _pair(features, probe, plan, rows, candidates[0])
        other = pair if again else _pair(features, probe, plan, both, candidates[0])[1]
    except ValueError as error:
        raise UserError(f"{plan.images.source}: {error}") from None
    made = _made(base, candidates[0], pair, last=len(scales) > 1)
    variances = None
    if pair is not None:
        weight, total = pair[0].astype(np.float64), sums.of(candidates[0])[0].covariance
        variances = np.einsum("ed,dc,ec->e", weight, total, weight, optimize=True)
    made.info["fit"] = {
        "by": candidates[0].words(),
        "from": "labels" if plan.labelled else "images",
        "images": int(rows.sum()),
        "scales": list(scales),
        "source": plan.images.source,
        "fingerprint": plan.fingerprint,
        "validation": table[0].scores if table else None,
    }
    whole = None
    if not again:
        whole = _made(base, candidates[0], other, last=len(scales) > 1)
        whole.info["fit"] = made.info["fit"] | {"images": int(both.sum())}
    seconds = {"fitting": round(time.monotonic() - began, 1)}
    return Fitted(made, candidates[0], table, plan, variances, whole, seconds)


def _pair(
    features: Features,
    probe: Embedder,
    plan: Plan,
    rows: NDArray[np.bool_],
    chosen: Candidate,
) -> tuple[Sums, Pair | None]:
    sums = Sums(features, probe.maps, rows, plan.objects, plan.cameras)
    sums.prepare([chosen])
    return sums, sums.fit(chosen)


def _base(embedder: Embedder) -> tuple[Embedder, list[Depth]]:
    """What is fitted behind, and its depths to choose from: none of a trained embedder.

    A projection that was fitted to a frozen network is taken off again, with that at the end.
    """
    plain = unwhitened(embedder)
    config = plain.config
    trained = "recipe" in plain.info or config.bn_neck or (config.projection and not config.depths)
    if trained:
        return plain, []
    if not hasattr(plain.backbone, "forward_intermediates"):
        return plain, []
    return plain, depths_of(plain.backbone, config.preprocess.size)


def _candidates(found: list[Depth], plan: Plan, wish: Wish) -> list[Candidate]:
    if not found and (wish.depths or (wish.grid or 1) > 1):
        raise UserError(
            "depths and grid are chosen of a backbone as it comes; this network is trained, or has "
            "no intermediate maps in timm: leave them out"
        )
    count = int(plan.fit.sum())
    if not plan.labelled:
        return [without_labels(found, count, wish)]
    objects = len(np.unique(plan.objects[plan.fit & (plan.objects >= 0)]))
    ways = with_labels(found, count, objects, wish)
    return ways if plan.val.any() else ways[:1]


def _probe(base: Embedder, found: list[Depth], candidates: list[Candidate]) -> Embedder:
    """The network that gives the parts of all candidates at once."""
    if not found:
        return base
    parts = sorted({part for way in candidates for part in way.parts}, key=lambda p: p[::-1])
    return with_parts(base, parts)


def _compared(
    probe: Embedder,
    features: Features,
    plan: Plan,
    valid: NDArray[np.bool_],
    candidates: list[Candidate],
) -> tuple[Scored, ...]:
    """All candidates fitted to the other training objects, scored on those held out."""
    sums = Sums(features, probe.maps, valid & plan.fit, plan.objects, plan.cameras)
    sums.prepare(candidates)
    rows = np.flatnonzero(plan.val)
    held, images = np.asarray(features[rows], np.float32), plan.images.rows(rows.tolist())
    groups: dict[Candidate, list[Candidate]] = {}
    for way in candidates:  # those that differ in their dimensions are one fit, cut off
        groups.setdefault(replace(way, dims=0), []).append(way)
    scored = {}
    for group in groups.values():
        most = max(group, key=lambda way: way.dims)
        columns = columns_of(probe.maps, most, held.shape[1])
        vectors = project(held[:, columns], sums.fit(most))
        for way in group:
            cut = vectors[:, : way.dims or None]
            scored[way] = Scored(way, held_out_scores(cut, images))
    ordered = [scored[way] for way in candidates]
    return tuple(sorted(ordered, key=lambda one: -one.scores["mAP"]))


def _made(base: Embedder, chosen: Candidate, pair: Pair | None, *, last: bool) -> Embedder:
    """`last`: the projection comes after the sum over scales, where these were summed."""
    joined = with_parts(base, chosen.parts) if chosen.depths else base
    if pair is None:
        return joined
    return whitened(joined, pair) if last or not chosen.depths else projected(joined, pair)
