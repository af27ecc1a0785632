"""What the verbs share: parsing, consoles, progress, JSON on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from resight.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from resight.train.start import Outcome


class Advance(Protocol):
    """What a progress bar gives: call it with what is done, the total, and a word on the side."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


COLUMNS_HELP = "Which of the file's columns are ours, e.g. object=sku,path=file."
LAYOUT_HELP = "A benchmark's layout by name, or folder for none; by default recognised."
IMAGES_HELP = "Folder of images, or a CSV or Parquet file with a row an image."


def console() -> Console:
    """The console on stderr: notes and progress; stdout is left to results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A line on stderr about what the program decided or found."""
    console().print(text, markup=False)


def parse_columns(text: str | None) -> dict[str, str]:
    """ "object=sku,path=file" as a dictionary. Raises UserError when it isn't of that form."""
    pairs: dict[str, str] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        ours, equals, theirs = part.partition("=")
        if not equals or not ours.strip() or not theirs.strip():
            raise UserError(f"--columns {text}: {part.strip()!r} is not of the form object=sku")
        pairs[ours.strip()] = theirs.strip()
    return pairs


def parse_size(text: str | None) -> tuple[int, int] | None:
    """ "256x128" or "224" as (height, width). Raises UserError for anything else."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(8 <= number <= 4096 for number in numbers):
        raise UserError(f"--size {text}: not HEIGHTxWIDTH or one number, from 8 to 4096 pixels")
    return numbers[0], numbers[-1]


def parse_scales(text: str) -> tuple[float, ...]:
    """ "1,0.707" as numbers. Raises UserError for anything else."""
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0.05 <= scale <= 8 for scale in scales):
        raise UserError(f"--scales {text}: not numbers from 0.05 to 8 with commas between")
    return scales


def report_skipped(skipped: list[dict[str, str]]) -> None:
    """Name the images that a long job passed over: the first ten, and how many in all."""
    for bad in skipped[:10]:
        note(f"skipped {bad['path']}: {bad['reason']}")
    if skipped:
        more = f" (and {len(skipped) - 10:,} more)" if len(skipped) > 10 else ""
        count = "1 bad image" if len(skipped) == 1 else f"{len(skipped):,} bad images"
        note(f"{count} skipped{more}; 'resight data check' says what is wrong")


@contextmanager
def progress_bar(description: str, total: int | None, unit: str = "images") -> Iterator[Advance]:
    """A bar with rate and time left on stderr; yields `advance(done, total)`.

    Without a terminal it prints a plain line every 30 seconds instead.
    """
    screen = console()
    if not screen.is_terminal:
        yield _PlainProgress(description, unit)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(description, total=total, rate="", text="")
        start = time.monotonic()
        first: int | None = None

        def advance(done: int, total: int, text: str = "") -> None:
            nonlocal first
            if text:
                progress.update(task, text=text)
            first = done if first is None else first
            rate = (done - first) / max(time.monotonic() - start, 1e-6)
            progress.update(task, completed=done, total=total, rate=f"{rate:,.0f} {unit}/s")

        yield advance


class _PlainProgress:
    def __init__(self, description: str, unit: str, every: float = 30.0):
        self._description, self._unit, self._every = description, unit, every
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        if now - self._last < self._every:
            return
        self._last = now
        rate = (done - self._first) / (now - self._start)
        left = (total - done) / rate if rate > 0 else 0
        print(
            f"{self._description}: {done:,} of {total:,}, {rate:,.0f} {self._unit}/s, "
            f"{left / 60:.0f} min left  {text}",
            file=sys.stderr,
        )


def print_json(content: Any) -> None:
    """One JSON object on stdout."""
    from resight.files import strict_json

    print(json.dumps(strict_json(content), ensure_ascii=False))


def report_run(outcome: Outcome) -> None:
    """What a finished run left, and what can be done next."""
    folder, place = outcome.run.folder, outcome.position
    evidence = folder / "evidence.html"
    best = "" if evidence.exists() else f", best epoch {place.best_epoch}"
    note(f"finished after {place.seconds / 60:.1f} minutes{best}")
    if place.skipped:
        note(f"{len(place.skipped):,} bad images were skipped (named in {folder / 'run.json'})")
    if evidence.exists():
        note(f"what it learned from: {evidence}")
        note(f"next: resight index {folder} PHOTOS --out GALLERY, then resight search")
    else:
        note(f"next: resight evaluate {folder}")
    print(folder / "embedder")
