"""A whole sweep: from settings and images to its table, page and plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.evaluate.records.record import load_record
from resight.models.embedder import embedder_folder
from resight.settings import read_yaml
from resight.train import rundir
from resight.train.sweeps import outcome, plan
from resight.train.sweeps.carry import (
    Options,
    Reports,
    Task,
    carry_out,
    evaluate_command,
    locked,
    places,
    task_of,
)

START = "weights as they come"


@dataclass(frozen=True)
class Result:
    """The finished runs, the reasons of those that failed, and the files that were written."""

    found: list[outcome.Finished]
    fails: dict[str, str]
    files: list[Path]


def sweep(
    trials: Sequence[plan.Trial],
    images: ImageSet,
    folder: Path,
    options: Options,
    reports: Reports,
    *,
    shared: dict[str, Any],
    baseline: str | None = None,
    start: bool = False,
) -> Result:
    """Carry out what is left of a sweep in `folder`, and write its table, page and plot.

    shared: the settings that all runs have in common. baseline: the group that the page compares
    the others with. start: evaluate the weights that training starts from, too.

    Raises UserError: images without labels or test rows, `folder` in use for something else, a
    baseline that is no group. KeyboardInterrupt when stopped; all is kept.
    """
    names = [*dict.fromkeys(trial.group for trial in trials), *([START] if start else [])]
    if baseline is not None and baseline not in names:
        raise UserError(f"--baseline {baseline}: no such group; there are: {'; '.join(names)}")
    images = plan.with_test(images)
    _check_folder(folder)
    with locked(folder, reports.tell) as lock:
        facts = {"settings": shared, "minutes": options.minutes, "protocols": options.protocols}
        plan.open_folder(folder, facts, images, trials)
        tasks = [task_of(trial, folder, options) for trial in trials]
        fails = carry_out(tasks, folder, options, reports, lock)
        first: list[outcome.Finished] = []
        if start:
            groups = _start_tasks(trials, folder, options)
            plan.add_groups(folder, {t.name: [plan.evaluation_of(t.slug)] for t in groups})
            fails |= carry_out(groups, folder, options, reports, lock)
            first = [
                outcome.Finished(task.name, load_record(task.evaluation))
                for task in groups
                if task.done()
            ]
        found = first + outcome.finished(trials, folder)
        files = write(folder, found, baseline) if found else []
    return Result(found, fails, files)


def write(folder: Path, found: Sequence[outcome.Finished], baseline: str | None) -> list[Path]:
    """Write the table, the plot and the page of these runs."""
    from resight.evaluate.report.groups_page import write_groups_page

    groups = outcome.grouped(found)
    table = outcome.write_csv(folder / outcome.TABLE, found, folder)
    plot = outcome.write_plot(folder / outcome.PLOT, found)
    known = baseline if baseline in groups else None  # all of its runs may have failed
    page = write_groups_page(folder / outcome.PAGE, groups, known)
    return [page, table, plot]


def _check_folder(folder: Path) -> None:
    """Refuse a folder of something else before the lock is written into it."""
    if folder.is_file():
        raise UserError(f"{folder}: is a file; a sweep needs a folder")
    if not folder.exists() or (folder / plan.RECORD).is_file():
        return
    if any(path.name != plan.LOCK for path in folder.iterdir()):
        raise UserError(f"{folder}: holds other files; give an empty or new folder for a sweep")


def _start_tasks(trials: Sequence[plan.Trial], folder: Path, options: Options) -> list[Task]:
    """Evaluate the networks that the finished runs started from, each once."""
    starts: dict[tuple[str, ...], str] = {}
    words: tuple[str, ...]
    for trial in trials:
        run = places(folder, trial.slug)[0]
        if not (run / rundir.SETTINGS).is_file():
            continue
        settings = read_yaml(run / rundir.SETTINGS)
        model, weights = settings["backbone"], settings["weights"]
        if embedder_folder(weights) is not None:
            starts[(weights,)] = weights
            continue
        height, width = settings["size"]
        words = (model, "--weights", weights, "--size", f"{height}x{width}")
        starts[words] = f"{model}, {height}x{width}"
    tasks = []
    for words, what in starts.items():
        name = START if len(starts) == 1 else f"{START}: {what}"
        slug = plan.safe("-".join(("start", *words)).replace("--", ""))
        evaluation = places(folder, slug)[1]
        command = partial(evaluate_command, words, folder, evaluation, options)
        tasks.append(Task(name, slug, evaluation, command))
    return tasks
