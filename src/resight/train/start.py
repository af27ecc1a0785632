"""From settings and an image set to a finished run folder."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState

from resight.data.imageset import ImageSet
from resight.data.sources import load_images
from resight.data.splits import Parts, training_parts
from resight.errors import UserError
from resight.features.compute import EmbedOptions
from resight.files import write_text
from resight.models.embedder import CONFIG, Embedder, pick_device
from resight.sampling.plan import describe
from resight.settings import dump_yaml, read_yaml
from resight.train.fitting.fit import fit as fit_projection
from resight.train.fitting.plan import plan_of
from resight.train.fitting.start import closed_form_start
from resight.train.loop import LoopOptions, Position, Watcher, fit
from resight.train.prepare import build_story, definite, epochs_for, timed
from resight.train.recipes import settings_of
from resight.train.recipes.settings import CommonSettings, TrainSettings
from resight.train.recipes.unlabelled import UnlabelledSettings
from resight.train.rundir import IMAGES, SETTINGS, Run, check_out
from resight.train.story import Story
from resight.train.unlabelled import pace
from resight.train.unlabelled.beginning import START
from resight.train.unlabelled.fit_to import unlabelled_rows
from resight.train.unlabelled.run import carry_out
from resight.train.unlabelled.stage import GROUND
from resight.train.validate import Validation

WHOLE = "start-whole"  # the start fitted to the objects held out as well
ENOUGH = 0.01  # of the score that decides: less than this is not worth the objects held out


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, the position it ended at, and the parts of the data."""

    run: Run
    position: Position
    parts: Parts


def start(
    settings: CommonSettings,
    images: ImageSet,
    out: Path,
    options: LoopOptions,
    watcher: Watcher,
    *,
    force: bool = False,
) -> Outcome:
    """Train a recipe on the training objects of an image set, into a new run folder.

    Raises UserError: data or settings that don't do, weights that can't be had, `out` in use.
    """
    check_out(out, force)
    watcher = _of_main(watcher)
    if isinstance(settings, UnlabelledSettings):
        return _start_unlabelled(settings, images, out, options, watcher, force)
    assert isinstance(settings, TrainSettings)
    parts = training_parts(images, val_share=settings.val_share, seed=settings.seed)
    settings = definite(settings, parts.train, watcher.tell)
    if settings.backbone == "resnet50" and pick_device().type == "cpu":
        watcher.tell("no GPU: resnet50 will be slow; --backbone auto takes a lighter one")
    if settings.start == "weights":
        story = build_story(settings, parts, watcher.tell)
        _create(out, settings, parts.images, force)
        return _fit(Run.open(out), settings, story, parts, options, watcher, resume=False)
    if "projection" not in settings.model_fields_set:  # a recipe's default, not a wish
        settings = settings.model_copy(update={"projection": None})
    _create(out, settings, parts.images, force)
    if is_main():
        Run.open(out).update(minutes=options.budget)
    with _nothing_left(out, out / START / CONFIG):
        return _from_closed_form(Run.open(out), settings, parts, options, watcher)


def resume(folder: Path, options: LoopOptions, watcher: Watcher) -> Outcome:
    """Go on with a run where its last checkpoint left it.

    Raises UserError when it is no run, is finished, or its images are not what they were.
    """
    run = Run.open(folder)
    watcher = _of_main(watcher)
    record = run.record
    if record["finished"]:
        raise UserError(f"{folder}: this run is finished; its embedder is {folder / 'embedder'}")
    images = load_images(folder / IMAGES)
    settings = settings_of(read_yaml(folder / SETTINGS), str(folder / SETTINGS))
    if changed(record["data"], images):
        raise UserError(
            f"{folder}: the images are not those that this run began with (fingerprints differ); "
            "put them back, or start a new run"
        )
    if isinstance(settings, UnlabelledSettings):
        return _unlabelled(run, settings, images, options, watcher)
    assert isinstance(settings, TrainSettings)
    parts = training_parts(images, val_share=settings.val_share, seed=settings.seed)
    if settings.start == "closed-form" and not (folder / "checkpoints" / "last.pt").is_file():
        return _from_closed_form(run, settings, parts, options, watcher)
    # The checkpoint brings the weights: nothing is to be loaded, or told of, here.
    bare = settings.model_copy(update={"weights": "none"})
    begun = folder / START if settings.start == "closed-form" else None
    story = build_story(bare, parts, lambda line: None, start=begun)
    return _fit(run, settings, story, parts, options, watcher, resume=True)


def _create(out: Path, settings: CommonSettings, images: ImageSet, force: bool) -> None:
    if is_main():
        Run.create(out, settings, images, force=force)
    PartialState().wait_for_everyone()


def _from_closed_form(
    run: Run, settings: TrainSettings, parts: Parts, options: LoopOptions, watcher: Watcher
) -> Outcome:
    """Fit first, unless that is done, then train from there as long as there is time."""
    began = time.monotonic()
    place = run.folder / START
    if is_main() and not (place / CONFIG).is_file():
        found = closed_form_start(settings, plan_of(parts), run.folder, options, watcher)
        write_text(run.folder / SETTINGS, dump_yaml(found.settings))
        run.update(settings=found.settings.model_dump(mode="json"))
        found.whole.save(run.folder / WHOLE)
        found.embedder.save(place)  # last: it says that the fit is done
    PartialState().wait_for_everyone()
    known = settings_of(read_yaml(run.folder / SETTINGS), str(run.folder / SETTINGS))
    assert isinstance(known, TrainSettings)
    budget = options.budget or run.record.get("minutes")  # of the run that is gone on with
    if known.steps is None and budget is not None:
        left = 60 * budget - (time.monotonic() - began)
        known, rate = timed(known, parts, place, left, options.workers)
        watcher.tell(f"{rate:.0f} images/s measured: {known.steps} steps fit into the time left")
        if is_main():
            write_text(run.folder / SETTINGS, dump_yaml(known))
            run.update(settings=known.model_dump(mode="json"))
        PartialState().wait_for_everyone()  # all train for as many steps as the first one says
        known = settings_of(read_yaml(run.folder / SETTINGS), str(run.folder / SETTINGS))
        assert isinstance(known, TrainSettings)
    story = build_story(known, parts, watcher.tell, start=place)
    return _fit(run, known, story, parts, options, watcher, resume=False)


def _start_unlabelled(
    settings: UnlabelledSettings,
    images: ImageSet,
    out: Path,
    options: LoopOptions,
    watcher: Watcher,
    force: bool,
) -> Outcome:
    chosen = unlabelled_rows(settings, images, watcher.tell)
    settings = definite(settings, chosen, watcher.tell)
    if is_main():
        Run.create(out, settings, chosen, force=force)
    PartialState().wait_for_everyone()
    with _nothing_left(out, out / "stage-1" / GROUND):
        return _unlabelled(Run.open(out), settings, chosen, options, watcher)


@contextlib.contextmanager
def _nothing_left(out: Path, kept: Path) -> Iterator[None]:
    """A run that a mistake ends before `kept` is there could not go on: it goes as a whole."""
    try:
        yield
    except (UserError, OSError):
        if is_main() and not kept.is_file():
            for path in out.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            with contextlib.suppress(OSError):  # it may be a mounted disk
                out.rmdir()
        raise


def _unlabelled(
    run: Run, settings: UnlabelledSettings, images: ImageSet, options: LoopOptions, watcher: Watcher
) -> Outcome:
    options = replace(options, precision=_precision(settings.precision))
    position = carry_out(run, settings, images, options, watcher)
    if is_main():
        run.finish(seconds=round(position.seconds, 1), skipped=position.skipped)
    return Outcome(run, position, Parts(images, images, images.rows([]), ()))


def changed(data: dict[str, object], images: ImageSet) -> bool:
    """Whether the images differ in number or size from those a record was made with."""
    return data["fingerprint"] != images.fingerprint()


def _fit(
    run: Run,
    settings: TrainSettings,
    story: Story,
    parts: Parts,
    options: LoopOptions,
    watcher: Watcher,
    *,
    resume: bool,
) -> Outcome:
    for line in parts.notes:
        watcher.tell(line)
    watcher.tell(
        f"training on {len(parts.train):,} images of {len(parts.train.objects()):,} objects, "
        f"validating on {len(parts.val):,} of {len(parts.val.objects()):,}"
    )
    watcher.tell(describe(story.labels, story.batches(0)))
    record = run.record
    story.embedder.info |= {
        "recipe": settings.model_dump(mode="json"),
        "data": record["data"] | {"training_objects": len(parts.train.objects())},
        "resight": record["resight"],
        "versions": record["versions"],
    }
    usable = len(parts.val.objects()) >= 2
    validation = (
        Validation(parts.val, settings.validate_every, settings.select_by, options.workers)
        if usable
        else None
    )
    if validation is None:
        watcher.tell("too few objects to hold any out: the last epoch's embedder is kept")
    options = replace(options, precision=_precision(settings.precision))
    position = fit(story, parts.train, validation, run, options, resume=resume, watcher=watcher)
    if is_main():
        if settings.refit and validation is not None and position.best_epoch > 0:
            position = _refitted(run, parts, position, settings, options, watcher)
        if position.start is not None and position.best < position.start + ENOUGH:
            _start_kept(run, position, watcher)
        _finish(run, position, settings)
    return Outcome(run, position, parts)


def _start_kept(run: Run, position: Position, watcher: Watcher) -> None:
    """Where training did not help, or hardly: the closed form, fitted to all training objects.

    The few more objects do as much for it (docs/embedder.md), and are known to.
    """
    if position.step:
        gain = 100 * (position.best - (position.start or 0.0))
        watcher.tell(
            f"training gained {gain:.1f} points on the objects held out, less than "
            f"{100 * ENOUGH:g}: the closed form is kept, fitted to these objects as well"
        )
    whole = Embedder.load(run.folder / WHOLE, "cpu")
    kept = Embedder.load(run.folder / "embedder", "cpu")
    whole.save(run.folder / "embedder", kept.info | whole.info | {"epoch": 0})


def _refitted(
    run: Run,
    parts: Parts,
    position: Position,
    settings: TrainSettings,
    options: LoopOptions,
    watcher: Watcher,
) -> Position:
    """A projection fitted to what was trained, kept where it helps on the objects held out."""
    embedder = Embedder.load(run.folder / "embedder")
    found = fit_projection(
        embedder,
        plan_of(parts),
        again=False,
        options=EmbedOptions(workers=options.workers),
        progress=lambda done, total: watcher.step(done, total, "embedding"),
    )
    scores = found.table[0].scores
    score = scores[settings.select_by]
    run.log({"kind": "refit", "step": position.step, "by": found.chosen.words()} | scores)
    if found.chosen.method == "raw" or score <= position.best:
        watcher.tell("a projection fitted again does not help; it is left out")
        return position
    watcher.tell(f"fitted again, {found.chosen.words()}: {settings.select_by} {100 * score:.1f}")
    found.embedder.save(run.folder / "embedder", found.embedder.info)
    return replace(position, best=score)


def within(
    settings: CommonSettings, images: ImageSet, minutes: float, workers: int | None
) -> tuple[CommonSettings, float, float]:
    """The settings with as many epochs as fit into `minutes`, by a few steps thrown away.

    Gives the measured images a second too, and the minutes of each clock: of the run, or of each
    stage of one without labels.
    """
    if settings.start == "closed-form" and isinstance(settings, TrainSettings):
        return settings, 0.0, minutes  # the steps are chosen once the start is there
    if isinstance(settings, UnlabelledSettings):
        found, rate = pace.fitting(settings, images, minutes, workers)
        return found, rate, minutes / max(1, len(settings.stages))
    assert isinstance(settings, TrainSettings)
    count, rate = epochs_for(settings, images, minutes, workers)
    return settings.model_copy(update={"epochs": count}), rate, minutes


def is_main() -> bool:
    """Whether this is the only process, or the one of several that talks and writes."""
    return bool(PartialState().is_main_process)


def _of_main(watcher: Watcher) -> Watcher:
    """Of several processes only the main one talks."""
    return watcher if is_main() else Watcher()


def _finish(run: Run, position: Position, settings: TrainSettings) -> None:
    run.finish(
        seconds=round(position.seconds, 1),
        best={"epoch": position.best_epoch, settings.select_by: position.best},
        skipped=position.skipped,
    )


def _precision(asked: str) -> str:
    """ "auto" is bfloat16 where the GPU has it, else float32."""
    if asked != "auto":
        return asked
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
