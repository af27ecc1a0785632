"""What the verbs share: parsing, consoles, progress, JSON on stdout."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from resight.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from resight.data.imageset import ImageSet
    from resight.train.start import Outcome


class Advance(Protocol):
    """What a progress bar gives: call it with what is done, the total, and a word on the side."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


def console() -> Console:
    """The console on stderr: notes and progress; stdout is left to results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A line on stderr about what the program decided or found."""
    console().print(text, markup=False)


def next_step(*words: str | Path) -> None:
    """The last line on stderr: the command that comes after this one, to be pasted as it is."""
    note(f"next: resight {shlex.join(map(str, words))}")


def free(folder: Path) -> Path:
    """`folder`, or with the first number that is not taken: a place for something new."""
    found, number = folder, 2
    while found.exists():
        found = folder.with_name(f"{folder.name}-{number}")
        number += 1
    return found


def of_set(
    images: str | Path, columns: str | None, layout: str | None, unlabelled: bool = False
) -> list[str]:
    """The words that name an image set in a command, so that it is read as it was here."""
    words = [str(images)]
    for name, value in (("--columns", columns), ("--layout", layout)):
        words += [name, value] if value is not None else []
    return words + ["--unlabelled"] * unlabelled


def of_model(weights: str | None, size: str | None) -> list[str]:
    """The words that belong to a backbone's name."""
    words = ["--weights", weights] if weights is not None else []
    return words + (["--size", size] if size is not None else [])


def read_set(
    images: Path, columns: str | None, layout: str | None, unlabelled: bool = False
) -> ImageSet:
    """An image set, with a note for everything that was decided; without labels if so wished."""
    from resight.data.sources import load_images

    found = load_images(
        images, columns=parse_columns(columns), layout=layout, unlabelled=unlabelled
    )
    for line in found.notes:
        note(line)
    return without_labels(found) if unlabelled else found


def without_labels(images: ImageSet) -> ImageSet:
    """The same images, their objects unknown."""
    import polars as pl

    empty = pl.lit(None, pl.String).alias("object")
    return replace(images, table=images.table.with_columns(empty))


def take_device(device: str | None) -> None:
    """What --device says holds for all that follows. Raises UserError when it can't be used."""
    from resight.models.devices import default_device

    default_device(device)


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
        pace = _Pace(unit)

        def advance(done: int, total: int, text: str = "") -> None:
            if text:
                progress.update(task, text=text)
            pace.at(done)
            progress.update(task, completed=done, total=total, rate=pace.told())

        yield advance


class _Pace:
    """How fast something counts up; from the start again where it counts from the start again."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._first, self._done, self._start = -1, -1, 0.0

    def at(self, done: int) -> None:
        """So many are done now."""
        if self._first < 0 or done < self._done:
            self._first, self._start = done, time.monotonic()
        self._done = done

    def rate(self) -> float:
        """A second; 0 where it can't be told."""
        return (self._done - self._first) / max(time.monotonic() - self._start, 1e-6)

    def told(self) -> str:
        """As text, with decimals where it is slow."""
        rate = self.rate()
        digits = 0 if rate >= 10 else 1 if rate >= 1 else 2
        return f"{rate:,.{digits}f} {self._unit}/s" if rate > 0 else ""

    def left(self, total: int) -> str:
        """The minutes until `total`, as text; "" where that can't be told."""
        rate = self.rate()
        return f"{(total - self._done) / rate / 60:.0f} min left" if rate > 0 else ""


class _PlainProgress:
    def __init__(self, description: str, unit: str, every: float = 30.0):
        self._description, self._every = description, every
        self._pace = _Pace(unit)
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, text: str = "") -> None:
        self._pace.at(done)
        now = time.monotonic()
        if now - self._last < self._every:
            return
        self._last = now
        told = [f"{self._description}: {done:,} of {total:,}"]
        told += [part for part in (self._pace.told(), self._pace.left(total)) if part]
        print(", ".join(told) + f"  {text}".rstrip(), file=sys.stderr)


def print_json(content: Any) -> None:
    """One JSON object on stdout."""
    from resight.files import strict_json

    print(json.dumps(strict_json(content), ensure_ascii=False))


def report_run(outcome: Outcome, images: list[str] | None, as_json: bool = False) -> None:
    """What a finished run left, and what can be done next; `images`: the words of its set."""
    folder, place = outcome.run.folder, outcome.position
    evidence = folder / "evidence.html"
    best = None if evidence.exists() else place.best_epoch
    if as_json:
        content: dict[str, Any] = {"run": str(folder), "embedder": str(folder / "embedder")}
        content |= {"minutes": place.seconds / 60, "best_epoch": best, "skipped": place.skipped}
        print_json(content)
        return
    note(
        f"finished after {place.seconds / 60:.1f} minutes"
        + (f", best epoch {best}" if best is not None else "")
    )
    if place.skipped:
        note(f"{len(place.skipped):,} bad images were skipped (named in {folder / 'run.json'})")
    print(folder / "embedder", flush=True)
    if evidence.exists():
        note(f"what it learned from: {evidence}")
    if not outcome.parts.images.has_matches() or evidence.exists():  # nothing to measure it by
        source = images or [str(folder / "images.parquet")]
        if (folder / "start").is_dir():
            words = ["ask", folder / "start", folder, *source, "--out", free(Path("ask.html"))]
            note(f"better than its start? Your eyes tell: resight {shlex.join(map(str, words))}")
        next_step("index", folder, *source, "--out", free(Path("galleries") / folder.name))
    else:
        next_step("evaluate", folder, "--out", free(Path("evaluations") / folder.name))
