"""One search: from query vectors to hits.

filter ─▶ nearest, by the view of the level ─▶ re-ranked, where asked ─▶ hits with their rows
                                                                       ─▶ their pictures compared
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.graph.rerank import Chain
from resight.search import finding, remote
from resight.search.calibrating import Known
from resight.search.engines.contract import Engine, Row
from resight.search.filters import Filter
from resight.search.hits import Hit, Hits
from resight.search.incoming import full_path
from resight.search.index import unit
from resight.search.left_out import gaps
from resight.search.verifying import Eyes, Photo
from resight.search.view import Bools, Near, View
from resight.search.views import Views

# A second look: query vectors (Q, D), what was found, and the view it was found in -> what to
# answer instead. Keys are the view's; similarities are what hits are ordered and shown by.
Rerank = Callable[[NDArray[np.float32], list[Near], View], list[Near]]


@dataclass(frozen=True)
class Search:
    """What is asked of a gallery, but for the queries themselves."""

    engine: Engine
    views: Views
    level: str
    where: Filter | None = None
    exclude_cameras: tuple[str, ...] = ()
    rerank: Rerank | Chain | None = None
    alpha: float | None = None
    known: Known | None = None
    eyes: Eyes | None = None

    def __call__(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: Sequence[str | None] | None = None,
        photos: Sequence[Sequence[Photo]] | None = None,
    ) -> list[Hits]:
        """The answers to query vectors (Q, D), `photos` of each; see `Gallery.search_vectors`."""
        if k < 1:
            raise UserError(f"k = {k}: at least 1 hit must be asked for")
        spatial = self.rerank.spatial if isinstance(self.rerank, Chain) else None
        if spatial is not None:
            if photos is None:
                raise UserError(f"rerank {self.rerank}: spatial needs the query's photos")
            wide = replace(self, rerank=Chain(self.rerank.steps[:-1]))  # type: ignore[union-attr]
            eyes = self.eyes or Eyes()
            before = wide(queries, max(k, spatial.top), exclude)
            why = f", re-ranked by {self.rerank}"
            return [
                said(eyes.verified(hits, some, spatial, k), why)
                for hits, some in zip(before, photos, strict=True)
            ]
        if isinstance(self.rerank, Chain) and not self.rerank:
            return replace(self, rerank=None)(queries, k, exclude)
        if self.rerank is None and k == 1:  # a gap is between two
            return [replace(hits, hits=hits.hits[:1]) for hits in self(queries, 2, exclude)]
        if not self.engine.counts()[0]:
            return [Hits(()) for _ in range(len(queries))]
        _check_queries(queries, int(self.engine.meta()["dim"]))
        barred = self._barred(exclude) if exclude is not None and self.level == "image" else None
        by = "image" if self.level == "image" else "object"
        tree = self.where.tree if self.where is not None else None
        plain = not self.exclude_cameras and self.rerank is None
        scores: list[NDArray[np.float64]] | None = None
        if plain and remote.can_search(self.engine, tree):
            if self.where is not None:
                finding.check_columns(self.engine, self.where)
            found = remote.nearest(self.engine, queries, k, level=by, where=tree, without=barred)
            kind = "the engine's index"
        else:
            view = self.views.get(by, self.exclude_cameras)
            how: dict[str, Any] = {"distinct": by == "image", "keep": self._keep(view)}
            how["without"] = barred
            if isinstance(self.rerank, Chain):
                from resight.search.reranking import looked  # its loops are compiled: not for all

                ready = self.views.ready(by, self.exclude_cameras, view, self.rerank)
                found, scores = looked(ready, view, queries, k, **how)
            else:
                found = view.nearest(queries, k, **how)
                if self.rerank is not None:
                    found = self.rerank(queries, found, view)
            kind = view.base.info.get("kind", "flat")
        answers = self._hits(found, self._shown(queries, found), kind)
        if scores is not None:
            answers = [_scored(hits, line) for hits, line in zip(answers, scores, strict=True)]
        return answers if self.known is None else self._judged(answers, found, self.known)

    def _judged(self, answers: list[Hits], found: list[Near], known: Known) -> list[Hits]:
        """The same with probabilities and p-values, and "no match" said where it is due."""
        alpha = float(known.record["alpha"]) if self.alpha is None else self.alpha
        known.calibration.check_alpha(alpha)
        judged = []
        for hits, near in zip(answers, found, strict=True):
            if not len(near.keys):
                judged.append(replace(hits, no_match=True, p_value=1.0, alpha=alpha))
                continue
            p = known.calibration.p_values(near.similarities, near.groups)
            likely: list[float | None] = [None] * len(hits)
            if known.probability is not None and self.rerank is None:  # learned from plain ones
                table = near.similarities[None]
                likely = known.probability(table, gaps(table))[0].tolist()
            told = tuple(
                replace(hit, probability=likely[at], p_value=float(p[at]))
                for at, hit in enumerate(hits)
            )
            first = float(p[0])
            judged.append(Hits(told, no_match=first > alpha, p_value=first, alpha=alpha))
        return judged

    def _keep(self, view: View) -> Bools | None:
        """Which of the view's items may be answers; None: all."""
        by_camera = self.exclude_cameras if self.level == "image" else ()
        if self.where is None and not by_camera:
            return None
        key = self.where.text if self.where is not None else None, by_camera
        version, mask = view.masks.get(key, (-1, None))
        if mask is None or version != view.version:  # asked again while nothing has changed
            mask = self._mask(view, by_camera)
            if len(view.masks) > 8:
                view.masks.clear()
            view.masks[key] = view.version, mask
        return mask

    def _mask(self, view: View, by_camera: tuple[str, ...]) -> Bools:
        ids, groups = finding.passed(self.engine, self.where, by_camera)
        if self.level == "image":
            return view.keep(ids)
        allowed = np.unique(np.concatenate([groups[groups > 0], -ids[groups == 0]]))
        return view.keep(allowed)

    def _barred(self, exclude: Sequence[str | None]) -> list[frozenset[int]]:
        """For each query the ids of the images with this path."""
        roots = self.engine.roots()
        return [
            frozenset(finding.at_path(self.engine, roots, path) if path is not None else ())
            for path in exclude
        ]

    def _shown(self, queries: NDArray[np.float32], found: list[Near]) -> list[list[int]]:
        """The image that stands for each hit; 0 where the object has gone in between."""
        if self.level == "image":
            return [near.keys.tolist() for near in found]
        first: dict[int, int] = {}
        if self.level == "object":
            wanted = {int(g) for near in found for g in near.groups if g}
            first = self.engine.first_images(wanted)
        else:
            images, asked = self.views.get("image"), unit(queries)
        shown: list[list[int]] = []
        for row, near in enumerate(found):
            line = []
            for key, group in zip(near.keys.tolist(), near.groups.tolist(), strict=True):
                if not group:
                    line.append(-key)
                elif self.level == "object":
                    line.append(first.get(group, 0))
                else:
                    line.append(_best_of(images, group, asked[row]))
            shown.append(line)
        return shown

    def _hits(self, found: list[Near], shown: list[list[int]], kind: str) -> list[Hits]:
        ids = sorted({id_ for line in shown for id_ in line})
        rows = {row.id: row for row in self.engine.rows(ids)}
        roots = {root.id: root for root in self.engine.roots()}
        counts = self._counts(found)
        why = f"{self.level} level, {kind}" + (", re-ranked" if self.rerank is not None else "")
        why += f" by {self.rerank}" * isinstance(self.rerank, Chain)
        answers = []
        for near, line in zip(found, shown, strict=True):
            hits: list[Hit] = []
            pairs = zip(line, near.similarities.tolist(), near.groups.tolist(), strict=True)
            for id_, similarity, group in pairs:
                row = rows.get(id_, Row())  # gone in between: it is shown without its file
                hits.append(
                    Hit(
                        len(hits) + 1,
                        row.object,
                        similarity,
                        full_path(row, roots),
                        row.place.box if row.place is not None else None,
                        counts.get(group, 1),
                        id_,
                        row.camera,
                        row.columns,
                        why=why,
                    )
                )
            answers.append(Hits(tuple(hits)))
        return answers

    def _counts(self, found: list[Near]) -> dict[int, int]:
        """How many images stand behind each object's vector; at image level one does."""
        if self.level == "image":
            return {}
        wanted = sorted({int(g) for near in found for g in near.groups if g})
        counts: dict[int, int] = {}
        for one in self.engine.sums_by_id(wanted):
            if one.camera not in self.exclude_cameras:
                counts[one.object_id] = counts.get(one.object_id, 0) + one.count
        return counts


def _scored(hits: Hits, scores: NDArray[np.float64]) -> Hits:
    told = zip(hits.hits, scores.tolist(), strict=True)
    return replace(hits, hits=tuple(replace(hit, score=score) for hit, score in told))


def said(hits: Hits, why: str) -> Hits:
    """The same, with what re-ranked them said."""
    told = (replace(hit, why=hit.why.partition(", re-ranked")[0] + why) for hit in hits.hits)
    return replace(hits, hits=tuple(told))


def _best_of(images: View, group: int, query: NDArray[np.float32]) -> int:
    """The image of an object that is nearest to a query; ties by id."""
    keys, rows = images.of_group(group)
    if not len(keys):
        return 0
    exact: Any = (rows.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    return int(keys[np.lexsort((keys, -exact))[0]])


def _check_queries(queries: NDArray[np.float32], dim: int) -> None:
    if queries.shape[1] != dim:
        raise UserError(
            f"the queries have {queries.shape[1]} dimensions, the gallery {dim}: they are of "
            "different embedders"
        )
    wrong = int((~np.isfinite(queries).all(axis=1)).sum())
    if wrong:
        raise UserError(f"{wrong} of the {len(queries)} queries are not finite numbers")
