"""The training loop: epochs, validation, checkpoints. A step is in `step`, a recipe in `story`."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.tensorboard import SummaryWriter

from resight.data.decode import BadImage
from resight.data.imageset import ImageSet
from resight.data.loading import Batch, Pictures, loader, strict_stop
from resight.errors import UserError
from resight.sampling.balanced import share
from resight.train import checkpoint
from resight.train.rundir import Run
from resight.train.step import NotFinite, Stepper, accelerator
from resight.train.story import Story
from resight.train.validate import Validation, in_words

_PAUSE = 30.0  # seconds between the checkpoints of short epochs


@dataclass(frozen=True)
class LoopOptions:
    """How the loop runs; only `precision`, `budget` and `max_minutes` change the outcome."""

    precision: str = "no"
    workers: int | None = None
    checkpoint_minutes: float = 10.0
    log_every: int = 10
    strict: bool = False
    max_minutes: float | None = None  # the epoch in which they pass is the last one
    budget: float | None = None  # minutes that steps are chosen for, where a start comes before


@dataclass
class Watcher:
    """Who wants to know: `step(done, total, text)`, `tell(line)`."""

    step: Callable[[int, int, str], None] = lambda done, total, text: None
    tell: Callable[[str], None] = lambda line: None


@dataclass
class Position:
    """Where the run stands; saved with each checkpoint."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch already taken
    step: int = 0  # batches taken in all
    best: float = -math.inf
    best_epoch: int = -1
    start: float | None = None  # the score of a start that was fitted
    seconds: float = 0.0
    skipped: list[str] = field(default_factory=list)


def fit(
    story: Story,
    images: ImageSet,
    validation: Validation | None,
    run: Run,
    options: LoopOptions,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Position:
    """Train until the last epoch, keeping the best embedder by `validation` in run/embedder.

    On resuming, weights, optimisers, position and random states are as they were, so that the
    outcome is that of an uninterrupted run, bit for bit (same machine, same number of threads).

    Raises UserError when the loss is no longer finite, or nothing can be decoded; Stopped after
    a signal (a checkpoint is written first).
    """
    watcher = watcher or Watcher()
    trainer = _Trainer(story, accelerator(options.precision), run, options, watcher)
    if resume:
        trainer.restore()
    with _signals() as stopped, trainer:
        trainer.run_epochs(images, validation, stopped)
    return trainer.position


class Stopped(Exception):
    """A signal asked to stop; the run can be resumed."""


class _Trainer:
    def __init__(
        self,
        story: Story,
        accelerator: Accelerator,
        run: Run,
        options: LoopOptions,
        watcher: Watcher,
    ):
        self.story, self.stepper = story, Stepper(story, accelerator)
        self.accelerator, self.run, self.options, self.watcher = accelerator, run, options, watcher
        self.position = Position()
        self.board: SummaryWriter | None = None

    def __enter__(self) -> None:
        if self.accelerator.is_main_process:
            self.board = SummaryWriter(
                str(self.run.folder / "tensorboard"), purge_step=self.position.step + 1
            )

    def __exit__(self, *_: object) -> None:
        if self.board is not None:
            self.board.close()

    def run_epochs(
        self, images: ImageSet, validation: Validation | None, stopped: Callable[[], bool]
    ) -> None:
        self.began = time.monotonic() - self.position.seconds
        self.saved = time.monotonic() - _PAUSE
        if self.story.settings.start == "closed-form" and self.position.best_epoch < 0:
            self._keep_start(validation)
        final = self._at_end()
        while not final:
            self._epoch(images, stopped)
            self.position.epoch += 1
            self.position.batch = 0
            late = self._agreed(self._time_is_up())
            final = late or self._at_end()
            if self.accelerator.is_main_process:
                self._check_weights()
                self._validate(validation, final)
            self.accelerator.wait_for_everyone()
            # Of epochs that take a second, not each is worth a checkpoint.
            if self._agreed(final or time.monotonic() - self.saved >= _PAUSE):
                self.save()
            if late:
                self.watcher.tell(f"time is up after {self.position.epoch} epochs")

    def _keep_start(self, validation: Validation | None) -> None:
        """What was fitted takes part in the choice, and the run can be used from here on."""
        if self.accelerator.is_main_process:
            self._validate(validation, final=True)
            self.position.start = self.position.best
        self.accelerator.wait_for_everyone()
        self.save()

    def _at_end(self) -> bool:
        length = self.story.length
        if length is not None:
            return self.position.step >= length
        return self.position.epoch >= self.story.settings.epochs

    def _time_is_up(self) -> bool:
        limit = self.options.max_minutes
        return limit is not None and time.monotonic() - self.began > 60 * limit

    def _epoch(self, images: ImageSet, stopped: Callable[[], bool]) -> None:
        story, place = self.story, self.position
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batches = [share(batch, rank, world) for batch in story.batches(place.epoch)]
        total = len(batches) * story.settings.epochs
        if story.length is not None:  # the last epoch may be a part of one
            total = story.length
            batches = batches[: place.batch + total - place.step]
        pictures = Pictures(
            images,
            story.embedder.preprocess,
            story.settings.augment,
            both=story.plan is not None and story.plan.plain,
        )
        window = _Window()
        for batch in loader(pictures, batches[place.batch :], self.options.workers):
            self._report_bad([bad for _, bad in batch.bad])
            rate = story.set_rates(place.epoch, place.step)
            place.batch += 1
            place.step += 1
            last = place.batch == len(batches)
            update = place.batch % story.settings.accumulate == 0 or last
            window.add(self._step(batch, images, update), len(batch.rows))
            if place.step % self.options.log_every == 0 or last:
                self._log(window, rate, total, len(batches))
                window = _Window()
            else:
                self.watcher.step(place.step, total, "")
            if not update:
                continue
            if self._agreed(stopped()):
                self.save()
                raise Stopped
            if time.monotonic() - self.saved > 60 * self.options.checkpoint_minutes and world == 1:
                self.save()

    def _step(self, batch: Batch, images: ImageSet, update: bool) -> dict[str, torch.Tensor]:
        try:
            place = self.position
            labels = self.story.targets(place.epoch, place.batch - 1, batch.rows)
            return self.stepper(batch.images, labels, update=update, plain=batch.plain)
        except NotFinite as fault:
            rows = batch.rows[fault.rows] if len(fault.rows) else batch.rows
            paths = [images.table["path"][int(row)] for row in rows[:3]]
            more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
            last = self.run.folder / "checkpoints" / "last.pt"
            kept = (
                f"the last checkpoint ({last}) is whole" if last.exists() else "no checkpoint yet"
            )
            raise UserError(
                f"step {self.position.step}, epoch {self.position.epoch + 1}: {fault} is not "
                f"finite; images {', '.join(paths)}{more}; lower the learning rate (--set lr=...) "
                f"or use --set precision=no; {kept}"
            ) from None

    def _log(self, window: _Window, rate: float, total: int, per_epoch: int) -> None:
        place = self.position
        values, images, seconds = window.close()
        speed = images * self.accelerator.num_processes / max(seconds, 1e-9)
        text = " ".join(f"{name} {value:.3f}" for name, value in values.items())
        epoch = f"epoch {place.epoch + 1}"
        if self.story.length is None:
            epoch += f"/{self.story.settings.epochs}"
        self.watcher.step(place.step, total, f"{epoch} {text} {speed:.0f} images/s")
        if self.board is None:
            return
        for name, value in values.items():
            self.board.add_scalar(f"train/{name}", value, place.step)
        self.board.add_scalar("train/lr", rate, place.step)
        entry = {
            "kind": "train",
            "step": place.step,
            "epoch": place.epoch + place.batch / per_epoch,
        }
        self.run.log(entry | {"lr": rate, "images_per_second": round(speed, 1)} | values)

    def _validate(self, validation: Validation | None, final: bool) -> None:
        place = self.position
        score = 0.0
        if validation is not None:
            if not (final or place.epoch % validation.every == 0):
                return
            scores = validation.run(self.story.embedder)
            score = scores[validation.select_by]
            self.run.log({"kind": "val", "step": place.step, "epoch": place.epoch} | scores)
            if self.board is not None:
                for name, value in scores.items():
                    self.board.add_scalar(f"val/{name}", value, place.step)
            mark = " (best so far)" if score > place.best else ""
            when = f"epoch {place.epoch}/{self.story.settings.epochs}"
            if self.story.length is not None:
                when = f"step {place.step}/{self.story.length}"
            if place.step == 0:
                when = "start, fitted in closed form"
            self.watcher.tell(f"{when}: {in_words(scores)}{mark}")
        if validation is None or score > place.best:
            place.best, place.best_epoch = score, place.epoch
            info: dict[str, Any] = {"epoch": place.epoch}
            if validation is not None:
                info |= {"validation": scores}
            self.story.embedder.save(self.run.folder / "embedder", self.story.embedder.info | info)

    def _report_bad(self, bad: Sequence[BadImage]) -> None:
        for error in bad:
            if self.options.strict:
                raise strict_stop(error)
            if error.path not in self.position.skipped:
                self.position.skipped.append(error.path)
                self.watcher.tell(f"skipped {error.path}: {error.reason}")

    def _agreed(self, flag: bool) -> bool:
        """Whether any process wants to stop: all of them must do so at the same step."""
        if self.accelerator.num_processes == 1:
            return flag
        return any(gather_object([flag]))

    def save(self) -> None:
        place = self.position
        self._check_weights()
        place.seconds = time.monotonic() - self.began
        # Each process draws its own random numbers (dropout): all states are kept.
        states = gather_object([checkpoint.random_states()])
        marks = gather_object([self.story.objective.keep()])
        if self.accelerator.is_main_process:
            content = {
                "model": self.story.state.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.story.optimizers],
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                "random": states,
                "objective": marks,
                "position": vars(place),
            }
            checkpoint.save(self.run.folder / "checkpoints" / "last.pt", content)
        self.accelerator.wait_for_everyone()
        self.story.objective.kept(marks[self.accelerator.process_index])
        self.saved = time.monotonic()

    def _check_weights(self) -> None:
        """Nothing that is broken may replace what is whole."""
        for name, parameter in self.story.state.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise UserError(
                    f"step {self.position.step}: {name} is no longer finite; lower the learning "
                    "rate (--set lr=...) or use --set precision=no; the last checkpoint is whole"
                )

    def restore(self) -> None:
        content = checkpoint.load(self.run.folder / "checkpoints" / "last.pt")
        states = content["random"]
        if len(states) != self.accelerator.num_processes:
            raise UserError(
                f"this run was made by {len(states)} processes, now there are "
                f"{self.accelerator.num_processes}; resume with as many"
            )
        self.story.state.load_state_dict(content["model"])
        for optimizer, state in zip(self.story.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if self.accelerator.scaler and content["scaler"]:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        self.position = Position(**content["position"])
        rank = self.accelerator.process_index
        checkpoint.restore_random_states(states[rank])
        self.story.objective.restore(content["objective"][rank] if "objective" in content else None)
        if self.accelerator.is_main_process:
            self.run.cut_log(self.position.step)


class _Window:
    """Sums of the losses since the last line of the log; nothing is fetched from the device."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.steps = self.images = 0
        self.start = time.monotonic()

    def add(self, losses: dict[str, torch.Tensor], images: int) -> None:
        self.images += images
        self.steps += bool(losses)
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def close(self) -> tuple[dict[str, float], int, float]:
        means = {name: float(value) / self.steps for name, value in self.sums.items()}
        return means, self.images, time.monotonic() - self.start


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag; a second one acts as usual."""
    caught: list[int] = []

    def note(number: int, _: object) -> None:
        caught.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    try:
        previous = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: no signal reaches us there
        yield lambda: False
        return
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
