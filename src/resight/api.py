"""What a notebook calls beside the embedder and the gallery: fit, train, evaluate, compare.

Thin: each function does what the verb of its name does, takes Python values and returns objects.
All names are importable from `resight` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resight.errors import UserError

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet
    from resight.evaluate.protocols import Level, Protocol
    from resight.evaluate.records.compare import Comparison
    from resight.evaluate.scores import Scores
    from resight.models.embedder import Embedder

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """A finished training run.

    folder: the run, which can stand wherever an embedder is asked for. score: on the objects that
    were held out, a fraction; None where none were, as without labels. minutes: how long it took.
    skipped: images that could not be read.
    """

    folder: Path
    embedder: Embedder
    score: float | None
    minutes: float
    skipped: tuple[str, ...] = ()


def _quiet(line: str) -> None:
    """Nobody wants to know."""


def train_embedder(
    images: ImageSet | str | Path,
    out: str | Path,
    *,
    recipe: str | None = None,
    minutes: float | None = None,
    unlabelled: bool = False,
    config: str | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    strict: bool = False,
    force: bool = False,
    tell: Tell = print,
    **values: Any,
) -> Trained:
    """Train an embedder, as `resight train` does, into the new run folder `out`.

    images: a set, or what `load_images` reads. recipe: "auto" (default: settings for these images
    and this machine), "ctl", "smooth_ap", without labels "graph" or "insclr". minutes: about how
    long it may take, in place of epochs. config: a YAML file of settings, or a name of `resight
    recipes`. settings: single settings by their dotted names; values: those that are options of the
    verb (backbone, weights, size, start, loss, epochs, steps, sources, seed). tell: gets a line for
    each decision and each validation.

    Raises UserError: images or settings that don't do, weights that can't be had, `out` in use.

        run = resight.train_embedder("photos/", "runs/shop", minutes=20)
        run.embedder.embed(["new_photo.jpg"])

        resight.train_embedder("photos/", "runs/ap", recipe="smooth_ap", epochs=10,
                               settings={"loss.temperature": 0.02, "ids": 8})
    """
    import json

    from resight.models.embedder import Embedder
    from resight.train.launch import launch, requested
    from resight.train.loop import Watcher
    from resight.train.recipes.settings import TrainSettings
    from resight.train.rundir import check_out

    known = ("backbone", "weights", "size", "start", "loss", "epochs", "steps", "seed")
    wrong = [name for name in values if name not in known]
    if wrong:
        raise UserError(
            f"train_embedder: no option {wrong[0]!r}; there are {', '.join(known)}, and settings"
        )
    out = Path(out)
    check_out(out, force)
    images = _images(images, unlabelled, tell)
    values["size"] = _square(values.get("size"))
    pairs = [f"{name}={json.dumps(value)}" for name, value in (settings or {}).items()]
    request = requested(
        images,
        recipe=recipe,
        config=config,
        pairs=pairs,
        minutes=minutes,
        unlabelled=unlabelled,
        **values,
    )
    for line in request.lines:
        tell(line)
    outcome = launch(
        request,
        images,
        out,
        workers=workers,
        strict=strict,
        force=force,
        watcher=Watcher(tell=tell),
    )
    place = outcome.position
    scored = isinstance(request.settings, TrainSettings) and len(outcome.parts.val) > 0
    return Trained(
        folder=out,
        embedder=Embedder.load(out),
        score=place.best if scored and place.best > float("-inf") else None,
        minutes=place.seconds / 60,
        skipped=tuple(place.skipped),
    )


def fit_embedder(
    images: ImageSet | str | Path,
    model: str | Path | Embedder = "auto",
    out: str | Path | None = None,
    *,
    method: str | None = None,
    depths: Sequence[int] | None = None,
    grid: int | None = None,
    dims: int | None = None,
    shrink: float | None = None,
    unlabelled: bool = False,
    weights: str | None = None,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    workers: int | None = None,
    tell: Tell = print,
) -> Embedder:
    """Fit an embedder in closed form, as `resight fit` does: seconds beside the embedding itself.

    model: a backbone's name (then with `weights` and `size`), or an embedder or its folder, which
    gets a projection at its end. What is None is chosen: with labels on objects held out, else the
    default. Never fitted to test rows. out: where it is saved, if anywhere.

    Raises UserError: no rows to fit to, or a wish that this network can't fulfil.

        embedder = resight.fit_embedder("photos/")
        embedder.info["fit"]          # by which way, to what, and the scores on objects held out
    """
    from resight.features.compute import EmbedOptions
    from resight.models.embedder import Embedder, embedder_folder
    from resight.models.open import open_embedder
    from resight.train.fitting.candidates import METHODS, Wish
    from resight.train.fitting.fit import fit
    from resight.train.fitting.plan import plan_rows
    from resight.train.prepare import size_for

    if method is not None and method not in METHODS:
        raise UserError(f"method {method!r}: choose one of {', '.join(METHODS)}")
    images = _images(images, False, tell)  # by their objects test rows are known
    if not isinstance(model, Embedder):
        wanted = _square(size)
        if wanted is None and embedder_folder(model) is None and not Path(model).exists():
            wanted = size_for(images, tell)
        model = open_embedder(str(model), weights=weights, size=wanted, tell=tell)
    elif weights is not None or size is not None:
        raise UserError("fit_embedder: weights and size go with a backbone's name")
    plan = plan_rows(model, images, unlabelled=unlabelled, seed=seed)
    for line in plan.notes:
        tell(line)
    chosen = tuple(depths) if depths is not None else None
    wish = Wish(method, chosen, grid, dims, shrink)  # type: ignore[arg-type]
    found = fit(model, plan, wish=wish, options=EmbedOptions(workers=workers))
    tell(found.chosen.words())
    if out is not None:
        found.embedder.save(out)
    return found.embedder


def evaluate_embedder(
    model: str | Path,
    images: ImageSet | str | Path | None = None,
    *,
    out: str | Path | None = None,
    protocols: Sequence[str] = (),
    level: Level | None = None,
    cross_camera: bool | None = None,
    rerank: str | None = None,
    transductive: bool = False,
    weights: str | None = None,
    size: int | tuple[int, int] | None = None,
    workers: int | None = None,
    tell: Tell = _quiet,
) -> list[Scores]:
    """Embed and measure, as `resight evaluate` does: one `Scores` a protocol.

    model: a run, an embedder's folder, or a backbone's name. images: by default a run's own; of a
    set without splits only what a training on it would hold out. rerank, transductive: a second
    look, as in `measure`. out: an evaluation folder with
    the results of all queries, a report and a record, for `compare_evaluations`.

    Raises UserError: no query has a match, no such protocol or model, `out` holds other files.

        image_level, object_level = resight.evaluate_embedder("runs/shop", out="evaluation")
        image_level.mAP, image_level.recall(1), object_level.intervals["mAP"]
    """
    from contextlib import nullcontext

    from resight.evaluate import run
    from resight.evaluate.records.job import Job
    from resight.evaluate.records.record import SCORES
    from resight.files import check_folder

    if out is not None:
        check_folder(Path(out), "an evaluation", mark=SCORES, force=True)
    if images is None:
        images = Path(model) / "images.parquet"
        if not images.is_file():
            raise UserError(f"{model}: images are missing: the images to evaluate on")
    found = run.carry_out(
        Job(model=str(model), weights=weights, size=_square(size), workers=workers),
        _images(images, False, tell),
        tuple(protocols),
        level,
        cross_camera,
        rerank=rerank,
        transductive=transductive,
        bar=lambda what, unit: nullcontext(lambda done, total: None),
        tell=tell,
    )
    if out is not None:
        title = f"{model} on {found.images.source}"
        run.write_folder(Path(out), found.images, found.scores, title, found.job, found.origin)
    return found.scores


def compare_evaluations(
    baseline: str | Path,
    *others: str | Path,
    protocol: str | None = None,
    page: str | Path | None = None,
) -> list[Comparison]:
    """Compare evaluation folders query by query, as `resight compare` does; one item a protocol.

    Differences are to the baseline, with 95 % intervals and p-values. page: an HTML file to write.

    Raises UserError: no evaluations, or none of the queries is in all of them.

        for one in resight.compare_evaluations("base", "other"):
            print(one.verdict(1))
    """
    from resight.evaluate.records.compare import compare
    from resight.evaluate.records.record import labels, load_record

    if not others:
        raise UserError("compare_evaluations: give a baseline and at least one other evaluation")
    records = [load_record(path) for path in map(Path, (baseline, *others))]
    comparisons, lines = compare(records, labels(records), protocol)
    if page is not None:
        from resight.evaluate.report.compare_page import write_compare_page

        write_compare_page(Path(page), comparisons, records, by=(), lines=lines)
    return comparisons


def load_protocol(name: str | Path) -> Protocol:
    """The protocol of this name ("market1501"), or that of a YAML file.

    Raises UserError when there is none.

        resight.measure(features, images, protocol=resight.load_protocol("sop"))
    """
    from resight.evaluate.catalogue import protocol

    return protocol(str(name))


def protocol_names(layout: str | None = None) -> list[str]:
    """The names of the built-in protocols, in the order of the catalogue.

    layout: only those of this benchmark's layout; "" for those that suit any set.

        resight.protocol_names("market1501")    # ["market1501", "market1501-centroid", ...]
    """
    from resight.evaluate.catalogue import ENTRIES

    found = [one.protocol.name for one in ENTRIES if layout is None or one.layout == layout]
    return list(dict.fromkeys(found))


def _images(images: ImageSet | str | Path, unlabelled: bool, tell: Tell) -> ImageSet:
    from resight.data.imageset import ImageSet
    from resight.data.sources import load_images

    if isinstance(images, ImageSet):
        return images
    found = load_images(images, unlabelled=unlabelled)
    for line in found.notes:
        tell(line)
    return found


def _square(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and 8 <= side <= 4096 for side in sides):
        raise UserError(f"size {size}: not one number or (height, width), from 8 to 4096 pixels")
    return sides[0], sides[1]
