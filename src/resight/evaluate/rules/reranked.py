"""Scores by a second look: what ranks are taken from where a protocol says how to re-rank.

Junk and camera rules apply afterwards, as ever: the graph holds the whole gallery. A query's own
row, where it is in the gallery too, is no neighbour of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resight.errors import UserError
from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking.csr import Ints
from resight.evaluate.ranking.result import Truth
from resight.evaluate.ranking.sources import Picked
from resight.evaluate.rules.objects import object_sums, object_truth
from resight.evaluate.rules.truth import Matches
from resight.features.rows import Rows
from resight.graph.rerank import Spatial, parse
from resight.graph.second import Rescored, Verify, prepare

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet


def rescored(
    features: Rows, found: Matches, protocol: Protocol, images: ImageSet | None
) -> tuple[Rescored, Truth, Ints]:
    """Rows of scores, the truth of their columns, and a table row for each column.

    `images`: those of the features' rows, for "spatial"; None where rows are averages.

    Raises UserError: object level where a query's own centroid leaves images out (the graph's
    would not), spatial where there is no picture to a row.
    """
    chain = parse(protocol.rerank)
    queries = Picked(features, found.queries)
    if protocol.level == "object":
        _, junk = found.truth.lists(0, len(found.truth))
        spared = int((junk.counts() > 0).sum())
        if spared:
            raise UserError(
                f"object level can't be re-ranked here: for {spared:,} queries the own object's"
                " centroid leaves images out (the query itself, or its camera's), and the graph's"
                " would not; take --level image, or a set whose queries are not in the gallery"
            )
        if chain.spatial is not None:
            raise UserError("rerank spatial: an object is no picture; take --level image")
        objects, sums = object_sums(features, found, protocol)
        truth, _ = object_truth(objects, found)
        rows = Rescored(
            prepare(sums.centroids(), chain), queries, transductive=protocol.transductive
        )
        return rows, truth, found.gallery[objects.first]
    place = np.minimum(np.searchsorted(found.gallery, found.queries), len(found.gallery) - 1)
    own = np.where(found.gallery[place] == found.queries, place, -1).astype(np.int64)
    verify = _verify(images, found, chain.spatial) if chain.spatial is not None else None
    prepared = prepare(Picked(features, found.gallery), chain)
    rows = Rescored(prepared, queries, own, protocol.transductive, verify)
    return rows, found.truth, found.gallery


def _verify(images: ImageSet | None, found: Matches, spatial: Spatial) -> Verify:
    from resight.spatial.verify import Verifier

    if images is None:
        raise UserError("rerank spatial: averaged rows are no pictures")
    verifier = Verifier(images, spatial.options())

    def count(query: Ints, place: Ints) -> Ints:
        pairs = np.stack([found.queries[query], found.gallery[place]], axis=1)
        return verifier.inliers(pairs).astype(np.int64)

    return count
