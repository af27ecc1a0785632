"""A protocol in sentences."""

from __future__ import annotations

from resight.evaluate.ranks import Ties
from resight.evaluate.scores import Scores

_TIES = {
    "by-id": "At equal similarity the image that stands first in the set comes first.",
    "optimistic": "At equal similarity right hits come before wrong ones.",
    "pessimistic": "At equal similarity wrong hits come before right ones.",
}
_AP = {
    "rectangular": "rectangular (the mean of the precisions at the right hits, full list)",
    "trapezoidal": "trapezoidal (each precision averaged with the one just before, full list)",
}


def describe(scores: Scores) -> list[str]:
    """Who queries, what is searched, what is left out and how AP is counted."""
    protocol, found = scores.protocol, scores.matches
    rows = f"the rows of split {protocol.split}" if protocol.split else "all rows"
    who = {
        "query-gallery": f"Of {rows}, those of role query search those of role gallery;"
        " rows of role both, or of none, do both.",
        "leave-one-out": f"Of {rows}, every image searches all others.",
    }[protocol.mode]
    what = {
        "image": f"The gallery holds one vector an image: {scores.gallery:,}.",
        "object": f"The gallery holds one vector an object, the centroid of its images:"
        f" {scores.gallery:,}. The centroid of the query's own object is built without the"
        " query's image.",
    }[protocol.level]
    sentences = [who, what]
    if protocol.cross_camera:
        left_out = {
            "image": "is removed for that query",
            "object": "does not enter that object's centroid for that query",
        }[protocol.level]
        sentences.append(
            "Cross-camera: a gallery image of the query's object taken by the query's camera"
            f" {left_out} (the rule of Market-1501)."
        )
    counted = f"{len(found.queries):,} queries count"
    if found.without_match:
        counted += f"; {found.without_match:,} without a match are left out"
    if found.unknown:
        counted += f"; {found.unknown:,} of unknown object do not query"
    if scores.dropped:
        counted += f"; {scores.dropped:,} rows without valid features take no part"
    sentences.append(counted + ".")
    sentences.append(f"Similarity is the cosine. AP is {_AP[protocol.ap]}.")
    return sentences


def ties_in_words(ties: Ties) -> str:
    """The tie rule as a sentence."""
    return _TIES[ties]
