"""Carrying a sweep out: each run is trained and evaluated by commands of its own.

What to do next for a run is read from its folders, so that a sweep that was killed anywhere goes
on with the same command: what is finished stays, what is half done is resumed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from resight.errors import UserError
from resight.evaluate.records.record import SCORES
from resight.files import read_json, write_text
from resight.train import rundir
from resight.train.sweeps.plan import IMAGES, LOCK, Trial, evaluation_of

RESIGHT = (sys.executable, "-m", "resight.cli.main")
_LOOK = 0.1  # seconds between two looks at the commands
_GRACE = 60.0  # seconds for a run to keep what it has when it is stopped
_MOST = 3  # commands that a run takes: train or resume, evaluate
_THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True)
class Options:
    """How the commands are run; threads and workers are those of each."""

    jobs: int = 1
    threads: int | None = None
    workers: int | None = None
    minutes: float | None = None
    protocols: tuple[str, ...] = ()
    device: str | None = None

    def reading(self) -> list[str]:
        """The words for `workers` and `device`."""
        words = [] if self.workers is None else ["--workers", str(self.workers)]
        return words if self.device is None else [*words, "--device", self.device]


@dataclass
class Reports:
    """Who wants to know: `tell(line)`; `step(done, total, text)` after each run."""

    tell: Callable[[str], None] = lambda line: None
    step: Callable[[int, int, str], None] = lambda done, total, text: None


@dataclass
class Task:
    """Done by commands one after another, until its evaluation is there."""

    name: str
    slug: str
    evaluation: Path
    next_command: Callable[[], list[str]]

    def done(self) -> bool:
        """Whether nothing is left to do."""
        return (self.evaluation / SCORES).is_file()


@dataclass
class _Active:
    task: Task
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    began: float
    commands: int


def places(folder: Path, slug: str) -> tuple[Path, Path, Path]:
    """Of one run: its run folder, its evaluation, and the file of its settings."""
    return (
        folder / "runs" / slug,
        folder / evaluation_of(slug),
        folder / "settings" / f"{slug}.yaml",
    )


def task_of(trial: Trial, folder: Path, options: Options) -> Task:
    """Train and evaluate one run of a sweep."""
    run, evaluation, settings = places(folder, trial.slug)

    def next_command() -> list[str]:
        record = run / rundir.RECORD
        if record.is_file():
            if read_json(record, "a run's record")["finished"]:
                return evaluate_command([str(run)], folder, evaluation, options)
            if any((run / name).exists() for name in ("checkpoints/last.pt", "start")):
                return ["train", "--resume", str(run), *options.reading()]
        # Killed before the first checkpoint, or before there was a record: begin again.
        shutil.rmtree(run, ignore_errors=True)
        values = dict(trial.values)
        write_text(settings, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        words = ["train", str(folder / IMAGES), "--config", str(settings), "--out", str(run)]
        if options.minutes is not None:
            words += ["--minutes", f"{options.minutes:g}"]
        return words + options.reading()

    return Task(f"{trial.group}, seed {trial.seed}", trial.slug, evaluation, next_command)


def evaluate_command(
    model: Sequence[str], folder: Path, evaluation: Path, options: Options
) -> list[str]:
    """The words that evaluate a model on the sweep's test rows."""
    if evaluation.exists():  # killed in the middle: not whole, or it would not be asked for
        shutil.rmtree(evaluation)
    words = ["evaluate", model[0], str(folder / IMAGES), *model[1:], "--out", str(evaluation)]
    return [*words, *(w for p in options.protocols for w in ("-p", p)), *options.reading()]


def carry_out(
    tasks: Sequence[Task], folder: Path, options: Options, reports: Reports, lock: int
) -> dict[str, str]:
    """Do all tasks, `options.jobs` at a time; returns the reason of each one that failed, by name.

    lock: of `locked`. A task that fails does not stop the others. On SIGINT or SIGTERM the
    commands are asked to stop, which keeps what they have, and KeyboardInterrupt is raised.
    """
    waiting = [task for task in tasks if not task.done()]
    total, done = len(tasks), len(tasks) - len(waiting)
    if done:
        reports.tell(f"{done} of {total} done before")
    fails: dict[str, str] = {}
    spent: list[float] = []
    active: list[_Active] = []
    reports.step(done, total, "")
    with _sigterm_interrupts():
        try:
            while waiting or active:
                while waiting and len(active) < options.jobs:
                    task = waiting.pop(0)
                    reports.tell(f"[{total - len(waiting)}/{total}] {task.name}: started")
                    active.append(_begin(task, folder, options, lock, time.monotonic(), 1))
                time.sleep(_LOOK)
                for one in [one for one in active if one.process.poll() is not None]:
                    active.remove(one)
                    reason = _reason(one, folder)
                    if reason is None and not one.task.done():
                        if one.commands < _MOST:
                            again = (one.began, one.commands + 1)
                            active.append(_begin(one.task, folder, options, lock, *again))
                            continue
                        reason = "its commands ended without an outcome"
                    done += 1
                    seconds = time.monotonic() - one.began
                    if reason is None:
                        spent.append(seconds)
                        word = f"finished in {seconds / 60:.1f} minutes"
                    else:
                        fails[one.task.name] = reason
                        word = f"FAILED: {reason}"
                    left = _minutes_left(spent, len(waiting) + len(active), options.jobs)
                    reports.tell(f"{one.task.name}: {word}" + (f"; {left}" if left else ""))
                    reports.step(done, total, left)
        except BaseException:
            _stop(active)
            raise
    return fails


def _begin(
    task: Task, folder: Path, options: Options, lock: int, began: float, commands: int
) -> _Active:
    words = task.next_command()
    path = folder / "logs" / f"{task.slug}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    log = open(path, "ab")  # noqa: SIM115  closed when the command has ended
    log.write(f"$ resight {shlex.join(words)}\n".encode())
    log.flush()
    environment = dict(os.environ)
    threads = options.threads
    if threads is None and options.jobs > 1:
        threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
    if threads is not None:
        environment |= dict.fromkeys(_THREADS, str(threads))
    # The lock goes with the command: a sweep that is killed leaves it held until that has ended.
    process = subprocess.Popen(
        [*RESIGHT, *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        pass_fds=(lock,),
    )
    return _Active(task, process, log, began, commands)


def _reason(one: _Active, folder: Path) -> str | None:
    """Why a command that has ended failed: the last line it wrote; None if it did not."""
    one.log.close()
    status = one.process.returncode
    if status == 0:
        return None
    path = folder / "logs" / f"{one.task.slug}.log"
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1].removeprefix("resight: ")
    if status < 0:
        last = f"killed by {signal.Signals(-status).name}"
    elif last.startswith("$ "):
        last = f"exit status {status}"
    return f"{last} ({path})"


def _minutes_left(spent: list[float], runs: int, jobs: int) -> str:
    if not spent or not runs:
        return ""
    minutes = sum(spent) / len(spent) * runs / min(jobs, max(runs, 1)) / 60
    return f"{runs} left, about {max(1, round(minutes))} minutes"


def _stop(active: list[_Active]) -> None:
    """Ask all commands to stop, wait for them to keep what they have, and see that they end."""
    for one in active:
        one.process.terminate()
    limit = time.monotonic() + _GRACE
    for one in active:
        try:
            one.process.wait(max(0.1, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        one.log.close()


@contextlib.contextmanager
def locked(folder: Path, tell: Callable[[str], None]) -> Iterator[int]:
    """Wait until no other sweep, and no run that a killed one left behind, is at work here."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"{folder}: another sweep, or a run that it left, is at work; waiting for its end")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(f"{folder}: can't be locked ({error.strerror})") from None
        yield file.fileno()


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread: no signal reaches us there
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
