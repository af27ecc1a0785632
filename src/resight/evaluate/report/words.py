"""A protocol in sentences."""

from __future__ import annotations

from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking.result import Ties
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
    summary = scores.summary()
    sentences = [_who(scores.protocol), _what(scores.protocol, scores.gallery)]
    sentences += _rules(scores.protocol)
    counted = f"{summary['queries']:,} queries count"
    if summary["queries_without_match"]:
        kept = "stay" if scores.protocol.open_set else "are left out"
        counted += f"; {summary['queries_without_match']:,} without a match {kept}"
    if summary["queries_of_unknown_object"]:
        counted += f"; {summary['queries_of_unknown_object']:,} of unknown object do not query"
    if scores.dropped:
        counted += f"; {scores.dropped:,} rows without valid features take no part"
    sentences.append(counted + ".")
    sentences.append(f"Similarity is the cosine. AP is {_ap(scores.protocol)}.")
    if scores.protocol.precisions:
        sentences.append(
            "mP@k is the share of right images among the first k, or down to the last right one"
            " where that comes sooner."
        )
    return sentences


def _who(protocol: Protocol) -> str:
    rows = f"the rows of split {protocol.split}" if protocol.split else "all rows"
    if protocol.rows:
        rows += f" where {protocol.rows}"
    if protocol.gallery_images is not None:
        images = "image" if protocol.gallery_images == 1 else "images"
        return (
            f"Of {rows}, {protocol.gallery_images} random {images} of each object are the gallery;"
            f" {protocol.repeats} draws from seed {protocol.seed}."
        )
    if protocol.mode == "leave-one-out":
        return f"Of {rows}, every image searches all others."
    who = f"Of {rows}, those of role query search those of role gallery; role both, or none, does"
    who += " both."
    who += f" Rows where {protocol.gallery} are searched too." if protocol.gallery else ""
    return who + (f" Only queries where {protocol.queries}." if protocol.queries else "")


def _what(protocol: Protocol, gallery: int) -> str:
    if protocol.legacy:
        return f"The gallery holds {gallery:,} centroids made as CTL's released code makes them."
    if protocol.level == "image":
        return f"The gallery holds one vector an image: {gallery:,}."
    return (
        f"The gallery holds one vector an object, the centroid of its images: {gallery:,}. The"
        " centroid of the query's own object is built without the query's image."
    )


def _rules(protocol: Protocol) -> list[str]:
    rules = []
    if protocol.positives:
        junk = f"; those of {', '.join(protocol.junk)} are removed" if protocol.junk else ""
        rules.append(f"Right are the images listed in {', '.join(protocol.positives)}{junk}.")
    if protocol.cross_camera and not protocol.legacy:
        left_out = {
            "image": "is removed for that query",
            "object": "does not enter that object's centroid for that query",
        }[protocol.level]
        rules.append(
            "Cross-camera: a gallery image of the query's object taken by the query's camera"
            f" {left_out} (the rule of Market-1501)."
        )
    if protocol.within:
        rules.append(f"A query searches only the gallery of its own {protocol.within}.")
    if protocol.templates:
        rules.append(f"Images of one {protocol.templates} are averaged to one vector.")
    if protocol.multi_query:
        columns = ", ".join(protocol.multi_query)
        rules.append(f"Queries that agree in {columns} are averaged to one.")
    if protocol.min_images > 1:
        rules.append(f"Objects with fewer than {protocol.min_images} vectors are left out.")
    if protocol.crop == "none":
        rules.append("Images are taken whole: their boxes are not used.")
    return rules


def _ap(protocol: Protocol) -> str:
    if protocol.ap_at is None:
        return _AP[protocol.ap]
    divided = {
        "relevant": "divided by all positives",
        "found": "divided by the positives found",
        "min": f"divided by the positives or {protocol.ap_at}, whichever is less",
    }[protocol.ap_divisor]
    return f"{protocol.ap}, over the first {protocol.ap_at} hits, {divided}"


def ties_in_words(ties: Ties) -> str:
    """The tie rule as a sentence."""
    return _TIES[ties]
