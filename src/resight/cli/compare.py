"""`resight compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resight.cli import options

if TYPE_CHECKING:
    from resight.evaluate.records.compare import Comparison


def compare(
    baseline: Annotated[str | None, typer.Argument(help=options.EVALUATION_HELP)] = None,
    others: Annotated[
        list[str] | None, typer.Argument(help="One or more to compare with it.")
    ] = None,
    protocol: Annotated[
        str | None, options.protocol("as recorded: only this; by default all that they share.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="On the page: AP by this column, not by object and camera."),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="In place of evaluations: what a page of 'resight ask' saved."),
    ] = None,
    out: Annotated[Path | None, options.out("an HTML page.")] = None,
    json_: options.Json = False,
) -> None:
    """Compare evaluations with a baseline on the same queries: is one better, and by how much?

    Differences come with 95 % intervals (whole objects resampled) and p-values (sign flips).
    Without labels, a person's answers say it: see 'resight ask'.

    Examples:

      resight compare evaluations/base evaluations/ctl

      resight compare base ctl smooth --protocol market1501 --out page.html

      resight compare base ctl --by category --out page.html

      resight compare --answers answers.json
    """
    from resight.cli.common import note, print_json
    from resight.errors import UserError
    from resight.evaluate.records.compare import compare as compare_records
    from resight.evaluate.records.record import labels, load_record

    if answers is not None:
        if baseline is not None or protocol is not None or by or out is not None:
            raise UserError("--answers stands alone, or with --json: give no evaluations beside it")
        _of_answers(answers, json_)
        return
    if baseline is None or not others:
        raise UserError(
            "give a BASELINE and OTHERS, evaluations to compare with it; or --answers FILE"
        )
    if by and out is None:
        raise UserError("--by is a part of the page; give --out page.html too")
    if out is not None:
        check_page(out)
    records = [load_record(path) for path in (baseline, *others)]
    names = labels(records)
    comparisons, lines = compare_records(records, names, protocol)
    page = None
    if out is not None:
        from resight.evaluate.report.compare_page import write_compare_page

        page = write_compare_page(out, comparisons, records, by=by or (), lines=lines)
    for line in lines:
        note(f"not compared: {line}")
    if json_:
        found = [one.to_dict() for one in comparisons]
        print_json({"baseline": names[0], "runs": names, "protocols": found, "notes": lines})
    else:
        for one in comparisons:
            print_comparison(one)
    if page is not None:
        note(f"page: {page}")


def _of_answers(path: Path, json_: bool) -> None:
    """What a person's answers say of two embedders."""
    from resight.cli.common import print_json
    from resight.evaluate.asking.answers import compare_answers

    verdict = compare_answers(path)
    if json_:
        print_json(verdict.to_dict())
        return
    for line in verdict.lines():
        print(line)


def check_page(path: Path) -> None:
    """Raises UserError unless `path` can be the name of a page."""
    from resight.errors import UserError

    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {path}: a page's name ends in .html")
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; a page is a file")


def print_comparison(one: Comparison) -> None:
    """A table for each run beside the baseline, in percent, and the verdict on it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from resight.evaluate.records.compare import in_words, percent, points, span

    screen = Console(highlight=False, soft_wrap=True)
    digits = one.digits

    def say(text: str) -> None:
        screen.print(text, markup=False)

    def cell(run: int, m: int) -> str:
        low, high = one.intervals[run, m]
        half = 100 * (high - low) / 2
        value = percent(one.values[run, m], digits)
        return value + (f" ± {half:.{digits}f}" if half == half else "")

    title = f": {one.title}" if one.title != one.protocol else ""
    say(f"{one.protocol}{title}; {one.tables[0].height:,} queries")
    for other, d in enumerate(one.differences, start=1):
        table = Table("%", *map(escape, (one.runs[0], one.runs[other])), "difference", "", "p")
        for m, metric in enumerate(one.metrics):
            difference = points(d.mean[m], digits), escape(span(d.interval[m], digits))
            table.add_row(metric, cell(0, m), cell(other, m), *difference, in_words(d.p[m], ""))
        screen.print(table)
        say(one.verdict(other))
    for line in one.notes:
        say(f"note: {line}")
