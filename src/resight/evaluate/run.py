"""From features of any origin to scores in a folder with a report, and the same again."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resight.data.addresses import absolute, shown, to_open
from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.evaluate.catalogue import of_layout
from resight.evaluate.catalogue import protocol as named
from resight.evaluate.protocols import Level, Protocol, at_level
from resight.evaluate.ranks import BLOCK_BYTES
from resight.evaluate.records.given import read_similarity
from resight.evaluate.records.job import (
    Job,
    Measured,
    as_trained,
    embed,
    open_model,
    read_features,
    require_same,
)
from resight.evaluate.records.record import IMAGES, SCORES, Record
from resight.evaluate.rules.parts import parts_of
from resight.evaluate.rules.truth import chosen_for
from resight.evaluate.scores import Scores, evaluate, evaluate_matrix
from resight.evaluate.share import Share
from resight.files import write_json

if TYPE_CHECKING:
    from resight.features.compute import Progress
    from resight.features.store import Features

# Of a description and a unit: a context that gives `advance(done, total)`.
Bar = Callable[[str, str], "AbstractContextManager[Progress]"]
_KEPT = ("queries", "gallery", "dropped")  # compared, beside the metrics, when a run is repeated


def measure(
    features: Features | NDArray[np.floating[Any]],
    images: ImageSet | None = None,
    *,
    level: Level = "image",
    cross_camera: bool | None = None,
    protocol: Protocol | str | None = None,
    rerank: str | None = None,
    transductive: bool = False,
    device: str = "cpu",
) -> Scores:
    """Scores of features (N, D), in the order of the rows of `images` (default: their own).

    protocol: a value, a name of the catalogue ("market1501"), or a YAML file. Without it, the one
    that the image set asks for (see `protocols.choose`), at this level and with this camera rule.
    rerank: a second look, as "kreciprocal" or "aqe+diffusion" (see docs/reranking.md);
    transductive: with all queries together. Both become part of the protocol.

    Raises UserError: features of other images, lengths differ, no query has a match, or no such
    protocol.
    """
    own = getattr(features, "images", None)
    if images is not None and own is not None:
        require_same(own, images, own.source or "features")
    images = images if images is not None else own
    if images is None:
        raise UserError("measure: images are missing, the image set of the features' rows")
    valid = getattr(features, "valid", None)
    asked = named(protocol) if isinstance(protocol, str) else protocol
    if rerank is not None:
        asked = asked or chosen_for(images.table, level, cross_camera, valid)
        (asked,) = looked_at_again([asked], rerank, transductive)
    return evaluate(
        features,
        images,
        level=level,
        cross_camera=cross_camera,
        valid=valid,
        protocol=asked,
        device=device,
    )


def protocols_for(
    images: ImageSet,
    names: tuple[str, ...] = (),
    level: Level | None = None,
    cross_camera: bool | None = None,
) -> list[Protocol] | None:
    """The protocols of these names, or those of the images' benchmark; None where neither is.

    level and cross_camera, where given, change them.
    """
    found = [named(name) for name in names] or of_layout(images.layout, level)
    if not found:
        return None
    if names and level is not None:
        found = [at_level(one, level) for one in found]
    if cross_camera is not None:
        found = [
            one if one.cross_camera == cross_camera
            else replace(one, cross_camera=cross_camera, name=f"{one.name}-changed")
            for one in found
        ]  # fmt: skip
    twice = [one.name for one in found if [two.name for two in found].count(one.name) > 1]
    if twice:
        raise UserError(f"two protocols are named {twice[0]}; each needs a name of its own")
    return found


def looked_at_again(
    protocols: list[Protocol], rerank: str | None, transductive: bool = False
) -> list[Protocol]:
    """The same protocols with a second look, under their own names: runs are compared by them."""
    if rerank is None and not transductive:
        return protocols
    second = {"rerank": rerank or "", "transductive": transductive}
    return [replace(one, **second) for one in protocols]  # type: ignore[arg-type]


def that_apply(
    images: ImageSet, protocols: list[Protocol], all_of_them: bool, tell: Callable[[str], None]
) -> list[Protocol]:
    """Those that find a query with a match, seen before any image is embedded.

    Raises UserError when one doesn't and all must, or none does.
    """
    found, reasons = [], []
    for one in protocols:
        try:
            if not (one.templates or one.multi_query):  # which are seen to with the features
                parts_of(images.table, one, np.ones(len(images), bool))
            found.append(one)
        except UserError as error:
            if all_of_them:
                raise
            reasons.append(f"{one.name} left out: {error}")
    if not found:
        raise UserError(reasons[0])
    for reason in reasons:
        tell(reason)
    return found


def chosen(measured: Measured, level: Level | None, cross_camera: bool | None) -> list[Protocol]:
    """What the image set asks for, at both levels or at the one given."""
    usable = None if measured.valid.all() else measured.valid
    levels: tuple[Level, ...] = ("image", "object") if level is None else (level,)
    return [chosen_for(measured.images.table, one, cross_camera, usable) for one in levels]


def score(
    measured: Measured,
    protocols: list[Protocol],
    device: str = "cpu",
    share: Share | None = None,
    bar: Bar | None = None,
    block_bytes: int = BLOCK_BYTES,
    tell: Callable[[str], None] = lambda line: None,
    some: bool = False,
) -> list[Scores]:
    """Scores by each of the protocols; bar: gives a progress bar.

    some: an object level that can't be re-ranked is left out, and told, where others are measured.
    """
    usable = None if measured.valid.all() else measured.valid
    found: list[Scores] = []
    for one in protocols:
        with bar(f"ranking, {one.name}", "queries") if bar else nullcontext(_silent) as advance:
            try:
                scores = evaluate(
                    measured.features,
                    measured.images,
                    protocol=one,
                    valid=usable,
                    device=device,
                    share=share,
                    progress=advance,
                    block_bytes=block_bytes,
                )
            except UserError as error:
                if not (some and found and one.rerank and one.level == "object"):
                    raise
                tell(f"{one.name} left out: {error}")
                continue
        found.append(scores)
    return found


def _silent(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Outcome:
    """Scores, the images that they are of, and what gives them again."""

    scores: list[Scores]
    images: ImageSet
    job: Job
    origin: dict[str, Any]


def carry_out(
    job: Job,
    images: ImageSet | None,
    names: tuple[str, ...] = (),
    level: Level | None = None,
    cross_camera: bool | None = None,
    *,
    protocols: list[Protocol] | None = None,
    rerank: str | None = None,
    transductive: bool = False,
    device: str = "cpu",
    block_bytes: int = BLOCK_BYTES,
    share: Share | None = None,
    bar: Bar,
    tell: Callable[[str], None],
) -> Outcome:
    """Do what a job says: embed or read, and score by the protocols of these names.

    Without names: by those of the images' benchmark, else as the image set asks for. `protocols`
    are taken as they are, in place of names. rerank, transductive: a second look, added to all of
    them. bar: gives a progress bar.
    """
    if rerank is not None:
        looked_at_again([Protocol("leave-one-out")], rerank, transductive)  # its mistakes, early
    if job.similarity is not None:
        if rerank is not None:
            raise UserError("--rerank needs features; given similarities are taken as they are")
        return _from_matrices(job, images, names, level, cross_camera, protocols)
    if job.model is not None:
        assert images is not None
        found = protocols or protocols_for(images, names, level, cross_camera)
        if found:
            found = that_apply(images, found, bool(names or protocols), tell)
        embedder, job, boxes = open_model(job, found or [], tell)
        if protocols is None:
            images = as_trained(embedder, images, tell)
        with bar("embedding", "images") as advance:
            besides = frozenset(one.gallery for one in found or [] if one.gallery)
            measured = embed(embedder, images, job, boxes=boxes, besides=besides, progress=advance)
        skipped = measured.origin["skipped"]
        for bad in skipped[:10]:
            tell(f"skipped {bad['path']}: {bad['reason']}")
        if len(skipped) > 10:
            tell(f"and {len(skipped) - 10:,} more; 'resight data check' says what is wrong")
    else:
        measured = read_features(job, images)
        found = protocols or protocols_for(measured.images, names, level, cross_camera)
        if found:
            found = that_apply(measured.images, found, bool(names or protocols), tell)
    found = looked_at_again(found or chosen(measured, level, cross_camera), rerank, transductive)
    scores = score(measured, found, device, share, bar, block_bytes, tell, level is None)
    return Outcome(scores, measured.images, measured.job, measured.origin)


def _from_matrices(
    job: Job, images: ImageSet | None, names: tuple[str, ...], level: Level | None,
    cross_camera: bool | None, protocols: list[Protocol] | None,
) -> Outcome:  # fmt: skip
    images, protocol, matrices, origin = read_similarity(job, images)
    if len(names) > 1:
        raise UserError("--similarity: give one --protocol")
    usual = protocols_for(images, names, level, cross_camera)
    asked = usual[0] if usual else None
    if protocol is not None and names and asked is not None:  # the truth says what is right
        counted = ("ap", "ap_at", "ap_divisor", "cutoffs", "precisions", "ties", "open_set")
        protocol = replace(protocol, **{name: getattr(asked, name) for name in counted})
    if protocol is None:
        protocol = asked or chosen_for(images.table, level or "image", cross_camera)
    if protocols is not None:
        gone = [one.name for one in protocols if one.name not in matrices]
        if gone:
            raise UserError(f"{job.similarity}: no array {gone[0]!r} any more")
        matrices = {one.name: matrices[one.name] for one in protocols}
    scores = []
    for name, matrix in matrices.items():
        one = replace(protocol, name=name)
        if protocols is not None:  # as recorded, by name
            one = next((given for given in protocols if given.name == name), one)
        scores.append(evaluate_matrix(matrix, images, one))
    return Outcome(scores, images, job, origin)


def repeat(
    record: Record,
    *,
    device: str = "cpu",
    bar: Bar,
    tell: Callable[[str], None],
) -> Outcome:
    """Do again what a record says, with its own images, options and protocols.

    Raises UserError when the record is of a version that kept no job, or a file is gone.
    """
    if not record.job:
        raise UserError(
            f"{record.folder}: made by a version that did not record how; evaluate anew"
        )
    job = Job.from_dict(dict(record.job))
    protocols = [Protocol.from_dict(plain) for plain in record.protocols.values()]
    images = None if job.truth is not None else record.images()
    return carry_out(job, images, protocols=protocols, device=device, bar=bar, tell=tell)


def write_folder(
    folder: Path, images: ImageSet, scores: list[Scores], title: str,
    job: Job, origin: dict[str, Any],
) -> Path:  # fmt: skip
    """Write scores, per-query results, a record of the run and report.html; the page's path."""
    from resight.evaluate.report import write_report
    from resight.provenance import git_state, versions

    folder.mkdir(parents=True, exist_ok=True)
    for one in scores:
        one.save(folder / one.protocol.name)
    images.write(folder / IMAGES)
    command = " ".join(["resight", "evaluate", "--from", str(folder)])
    page = write_report(folder / "report.html", scores, images, title=title, command=command)
    record = {
        "command": [shown(word) for word in sys.argv],
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "data": {
            "source": absolute(to_open(images.source)),
            "fingerprint": images.fingerprint(),
            "layout": images.layout,
        },
        "job": job.to_dict(),
        "origin": origin,
        "versions": versions(),
        "git": git_state(Path.cwd()),
        "scores": [one.summary() for one in scores],
        "protocols": [one.protocol.to_dict() for one in scores],
    }
    write_json(folder / SCORES, record)  # last: it marks the folder as whole
    return page


def what_changed(record: Record, images: ImageSet, origin: dict[str, Any]) -> list[str]:
    """What is no longer as the record says: images, features, packages."""
    from resight.provenance import versions

    changed = []
    if images.fingerprint() != record.data.get("fingerprint"):
        changed.append("the images are not those of the record")
    for name in ("embedder", "preprocess", "features", "similarity", "truth"):
        if origin.get(name) != record.origin.get(name):
            changed.append(f"{name}: not the one of the record")
    for name, version in versions().items():
        before = record.versions.get(name)
        if before != version:
            changed.append(f"{name} is {version}, was {before}")
    return changed


def differences(record: Record, scores: list[Scores]) -> list[str]:
    """Numbers that are not the record's, to the last digit."""
    found = []
    for one in scores:
        before, now = record.summaries[one.protocol.name], one.summary()
        for name in (*one.names(), *_KEPT):
            old, new = before.get(name), now.get(name)
            if isinstance(new, float) and math.isnan(new):
                new = None  # as JSON has it
            if old != new:
                found.append(f"{one.protocol.name}: {name} is {new!r}, was {old!r}")
        stored = record.per_query(one.protocol.name)
        shared = [name for name in ("row", "AP", "first_rank") if name in stored.columns]
        if not stored.select(shared).equals(one.per_query.select(shared)):
            found.append(f"{one.protocol.name}: results of single queries differ")
    return found
