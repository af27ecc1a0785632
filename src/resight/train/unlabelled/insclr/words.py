"""The evidence in sentences: what was found, and what to change where it is not good."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from resight.mining.look import Look
from resight.mining.selection import Rule
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.unlabelled.insclr.record import Evidence, Means, Similarities
from resight.train.unlabelled.shown import percent

_FEW_POSITIVES, _FEW_KEPT = 0.05, 0.05
_ALIKE = 0.2  # of random pairs; where features tell anything apart it is near 0


def sentences(evidence: Evidence) -> list[str]:
    """The numbers in words."""
    return [*_left_out(evidence), *_found(evidence.means), *_checks(evidence)]


def _left_out(evidence: Evidence) -> list[str]:
    said = f"{evidence.rows:,} of {evidence.images:,} images are learned from"
    if evidence.copies:
        said += f"; {_count(evidence.copies, 'near-duplicate')} of others are left out"
    if evidence.unusable:
        said += f"; {evidence.unusable:,} can't be used"
    return [said + "."]


def _found(means: Means) -> list[str]:
    said = []
    if means.asked:
        said.append(f"Of {means.asked:.3g} nearest neighbours {means.kept:.1f} stay.")
    if means.mined is not None:
        how = f"{means.initial:.1f} at once"
        if means.by_round:
            rounds = " + ".join(f"{mean:.1f}" for mean in means.by_round)
            how += (
                f", {means.joined:.1f} in rounds: {rounds}"
                if len(means.by_round) > 1
                else (f", {means.joined:.1f} in one round")
            )
        said.append(f"{means.mined:.1f} further positives are mined per anchor ({how}).")
        said.append(
            f"{means.undecided:.1f} candidates stay undecided and {means.hard:.1f} are hard "
            "negatives."
        )
    return said


def _checks(evidence: Evidence) -> list[str]:
    own = evidence.checked
    if own is None:
        return []
    said, labels = [], " (checked against the labels, which training does not see)"
    for share, whose in ((own.kept, "the neighbours that stay"), (own.mined, "the mined ones")):
        if share is not None:
            said.append(f"{percent(share)} of {whose} are of the anchor's object{labels}.")
            labels = ""
    if own.recall is not None and own.reachable is not None:
        said.append(
            f"Kept or mined are {percent(own.recall)} of the images of an anchor's object; "
            f"{percent(own.reachable)} are in what was looked at."
        )
    if own.hard_right is not None:
        said.append(f"{percent(own.hard_right)} of the hard negatives are of the anchor's object.")
    return said


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def warnings(
    settings: InsCLRSettings,
    images: int,
    copies: int,
    means: Means,
    similarities: Similarities,
    hubs: Sequence[tuple[str, int]],
) -> list[str]:
    """What is wrong and which settings to change, one sentence each.

    images: usable ones, of which `copies` are near-duplicates of others; hubs: image and among
    whose ten nearest neighbours it is.
    """
    found = []
    few = means.mined is not None and means.mined < _FEW_POSITIVES
    if few and settings.select and means.kept_share is not None and means.kept_share < _FEW_KEPT:
        change = (
            f"lower select.threshold (now {settings.select.threshold:g}), mining.initial_at and "
            "mining.candidate_at"
        )
        if settings.calibrate:
            change = f"raise calibrate (now {settings.calibrate:g})"
        found.append(
            f"hardly anything is mined ({means.mined:.2f} positives a tuple, "
            f"{percent(means.kept_share)} of the neighbours stay): {change}, or start from "
            "weights that fit these photos better"
        )
    found += _one_cluster(settings, images, means, similarities)
    if hubs:
        more = f", and {len(hubs) - 1} more are like it" if len(hubs) > 1 else ""
        found.append(
            f"{hubs[0][0]} is among the ten nearest neighbours of {hubs[0][1]:,} images{more}: "
            "such hubs draw wrong positives; look whether they are broken or empty pictures and "
            "remove them, or set whiten (now "
            f"{settings.whiten if settings.whiten is not None else 'none'})"
        )
    if copies > images / 2:
        found.append(
            f"{copies:,} of {images:,} images are near-duplicates of others, so there is little to "
            "learn from; add other photos, or raise pool.copies_from (now "
            f"{settings.pool.copies_from:g}) if they are not duplicates"
        )
    return found


def _one_cluster(
    settings: InsCLRSettings, images: int, means: Means, similarities: Similarities
) -> list[str]:
    positives, mean = means.kept + (means.mined or 0), similarities.random_mean
    above = similarities.random_above_nearest
    change = "raise select.threshold, mining.initial_at and mining.rule.floor"
    if settings.calibrate:
        change = "lower calibrate"
    if settings.whiten is None:
        change += ", or set whiten=auto"
    if settings.select and mean is not None and mean > settings.select.threshold:
        return [
            f"everything is one cluster: two random images have a similarity of {mean:.2f} on "
            f"average, more than select.threshold ({settings.select.threshold:g}); {change}"
        ]
    if above is not None and above > _ALIKE:
        return [
            f"everything is one cluster: {percent(above)} of random pairs are as similar as an "
            "image and its nearest neighbour; lower lr or start from other weights"
            + (", or set whiten=auto" if settings.whiten is None else "")
        ]
    if positives > images / 3:
        return [
            f"everything is one cluster: an anchor has {positives:.1f} positives among "
            f"{images:,} images; unless so many do show one thing, {change}"
        ]
    return []


def thresholds(settings: InsCLRSettings, look: Look) -> dict[str, str]:
    """What selection and mining went by, by the names of the settings; no others.

    Where thresholds come from the collection (`calibrate`), `look` has what they are.
    """
    found: dict[str, str] = {}
    for name in ("neighbours", "similarity", "calibrate"):
        found |= _flat(name, getattr(settings, name))
    for name, value in (("select", look.select), ("mining", look.mining)):
        found |= _flat(name, value)
    return found | _flat("spatial", settings.spatial)


def _flat(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, BaseModel):
        return {name: f"{value:.4g}" if isinstance(value, float) else str(value).lower()}
    idle = set()
    if isinstance(value, Rule):
        idle = {"top"} if value.choose == "threshold" else {"threshold"}
        if value.score == "max" and value.choose == "threshold":
            idle.add("floor")
    found: dict[str, str] = {}
    for key in type(value).model_fields:
        if key not in idle:
            found |= _flat(f"{name}.{key}", getattr(value, key))
    return found
