"""`resight data check`: run the doctor on an image set and print what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resight.cli import options
from resight.errors import UserError

if TYPE_CHECKING:
    from resight.data.doctor import Finding, Report

_EXAMPLES = 3
_NAMED = 10
_COLOURS = {"error": "bold red", "warning": "yellow", "info": "dim"}


def check(
    images: Annotated[Path, typer.Argument(help=options.IMAGES_HELP + " Or a features folder.")],
    columns: options.Columns = None,
    layout: options.Layout = None,
    unlabelled: options.Unlabelled = False,
    near: Annotated[
        bool, typer.Option("--near/--no-near", help="Look for near duplicates too.")
    ] = True,
    sheet: options.Sheet = None,
    fail_on_warnings: Annotated[
        bool, typer.Option("--fail-on-warnings", help="Exit with status 1 for warnings too.")
    ] = False,
    workers: options.Workers = None,
    json_: options.Json = False,
) -> None:
    """Find what is wrong with an image set before a long run does.

    Looks for files that can't be read, pictures that come twice (also across splits), objects
    and queries without a match, and cameras that are none. Of a features folder (from 'resight
    embed') the vectors are checked too: damaged files, another embedder, collapsed features.
    Exits with status 0 when there are no errors, 1 when there are, 2 when it can't run.

    Examples:

      resight data check photos

      resight data check index.csv --columns object=sku --sheet check.png

      resight data check index.csv --json --fail-on-warnings > check.json

      resight data check features/shop
    """
    from dataclasses import replace
    from time import monotonic

    from resight.cli.common import note, parse_columns, print_json, progress_bar, without_labels
    from resight.data.doctor import by_severity, examine, write_sheet
    from resight.data.sources import load_images
    from resight.features.check import check_features
    from resight.features.store import is_features

    if sheet is not None and sheet.suffix.lower() != ".png":  # not after an hour's work
        raise UserError(f"--sheet {sheet}: give a name that ends in .png")
    start, there = monotonic(), True
    stored: list[Finding] = []
    if is_features(images):
        stored, image_set = check_features(images)
        there = any(path.is_file() for path in image_set.full_paths())
        if not there:
            note(f"{images}: the photos are not there any more; only the features are checked")
    else:
        image_set = load_images(
            images, columns=parse_columns(columns), layout=layout, unlabelled=unlabelled
        )
        image_set = without_labels(image_set) if unlabelled else image_set
    with progress_bar("checking", len(image_set)) as advance:
        report = examine(
            image_set,
            workers=max(1, workers) if workers is not None else None,
            progress=advance,
            near=near,
            files=there,
        )
    report = replace(report, findings=by_severity([*stored, *report.findings]))
    seconds = monotonic() - start
    if sheet is not None:
        write_sheet(report, image_set, sheet, tell=note)
    if json_:
        print_json({"source": image_set.source, **report.to_json(), "sheet": _text(sheet)})
    else:
        for line in image_set.notes:
            note(line)
        _print(report, seconds, str(images), sheet)
    if not json_:
        _next(report, images, [columns, layout, unlabelled], sheet)
    if report.count("error") or (fail_on_warnings and report.count("warning")):
        raise typer.Exit(1)


def _next(report: Report, images: Path, read: list[Any], sheet: Path | None) -> None:
    """With errors, look at them; else begin."""
    from resight.cli.common import free, next_step, of_set
    from resight.features.store import is_features

    words = of_set(images, *read)
    if report.count("error"):
        if sheet is None:
            next_step("data", "check", *words, "--sheet", "check.png")
    elif is_features(images):
        next_step("index", images, "--out", free(Path("galleries") / images.name))
    else:
        next_step("train", *words)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _print(report: Report, seconds: float, source: str, sheet: Path | None) -> None:
    """The table of findings, a summary line, and where the contact sheet is."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen.width = 120
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("severity")
    table.add_column("count", justify="right")
    table.add_column("finding, what it means, and where", overflow="fold", ratio=1)
    for finding in report.findings:
        colour = _COLOURS[finding.severity]
        unit = finding.unit if finding.count != 1 else finding.unit.removesuffix("s")
        where = "".join(f"\n  {line}" for line in _examples(report, finding))
        table.add_row(
            Text(finding.severity, colour),
            f"{finding.count:,} {unit}",
            Text.assemble((finding.code, "bold"), f"\n{finding.meaning}", (where, "dim")),
        )
    if report.findings:
        screen.print(table)
    print(_summary(report, seconds))
    if sheet is not None:
        print(f"contact sheet: {sheet}")
    elif any(finding.severity != "info" and finding.rows for finding in report.findings):
        print(f"to see the images: resight data check {source} --sheet check.png")


def _examples(report: Report, finding: Finding) -> list[str]:
    """The first few paths of a finding, with the reason or the other path of the pair."""
    if finding.severity == "info" and not finding.partners:
        return []
    if finding.names:
        lines = [" / ".join(group) for group in finding.names[:_NAMED]]
        more = len(finding.names) - _NAMED
        return [*lines, f"and {more:,} more"] if more > 0 else lines
    lines = []
    for number, row in enumerate(finding.rows[:_EXAMPLES]):
        line = str(report.paths[row])
        if finding.partners:
            line += f" = {report.paths[finding.partners[number]]}"
        elif row in report.reasons:
            line += f" ({report.reasons[row]})"
        lines.append(line)
    more = len(finding.rows) - _EXAMPLES
    return [*lines, f"and {more:,} more"] if more > 0 else lines


def _summary(report: Report, seconds: float) -> str:
    parts = [f"{report.images:,} images"]
    if report.objects:
        parts.append(f"{report.objects:,} objects")
    if report.cameras:
        parts.append(f"{report.cameras:,} cameras")
    splits = [f"{name} {count:,}" for name, count in report.splits.items() if name]
    made_of = ", ".join([*parts, *splits])
    errors, warnings = report.count("error"), report.count("warning")
    kinds = f"errors of {_kinds(errors)}, warnings of {_kinds(warnings)}"
    kinds = kinds if errors or warnings else "no errors, no warnings"
    rate = report.images / max(seconds, 1e-6)
    return f"{made_of}: {kinds} ({seconds:.1f} s, {rate:,.0f} images/s)"


def _kinds(count: int) -> str:
    return f"{count} kind" if count == 1 else f"{count} kinds"
