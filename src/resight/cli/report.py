"""`resight report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resight.cli import options
from resight.cli.compare import check_page

if TYPE_CHECKING:
    from resight.evaluate.records.sets import MethodSet

_HELP = (
    options.EVALUATION_HELP
    + " Any number. Or methods with several runs each: NAME=EVALUATION,EVALUATION,..."
    " Or folders of sweeps, one an image set."
)


def report(
    evaluations: Annotated[list[str], typer.Argument(help=_HELP)],
    out: Annotated[Path | None, options.out("an HTML page.")] = None,
    baseline: options.Baseline = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Of methods: the table as a CSV file.")
    ] = None,
    json_: options.Json = False,
) -> None:
    """One page about evaluations: a table for each protocol, with published figures beside it.

    Of methods that were trained several times: means and standard deviations over the runs,
    intervals, and paired tests against a baseline.

    Examples:

      resight report evaluations/market --out market.html

      resight report runs/* --out all.html

      resight report CTL=runs/ctl-1,runs/ctl-2 Triplet=runs/tri-1,runs/tri-2 --out seeds.html

      resight report sweeps/signs sweeps/plants --baseline Triplet --out all.html --csv all.csv
    """
    from resight.cli.common import note
    from resight.errors import UserError
    from resight.evaluate.records.record import labels, load_records
    from resight.evaluate.records.sets import read_sets

    if out is not None:
        check_page(out)
    sets = read_sets(evaluations)
    if sets:
        _report_methods(sets, out, baseline, csv, json_)
        return
    if baseline is not None or csv is not None or json_:
        raise UserError(
            "--baseline, --csv and --json are for methods (NAME=run,run) and sweeps;"
            " 'resight compare' compares single runs"
        )
    if out is None:
        raise UserError("--out is missing: the page to write, e.g. page.html")

    from resight.evaluate.report.runs_page import write_runs_page

    records = load_records(evaluations)
    write_runs_page(out, records, labels(records))
    note(f"{len(records)} evaluations" if len(records) > 1 else "1 evaluation")
    print(out)


def _report_methods(
    sets: Sequence[MethodSet],
    out: Path | None,
    baseline: str | None,
    csv: Path | None,
    json_: bool,
) -> None:
    from resight.cli.common import note, print_json
    from resight.errors import UserError
    from resight.evaluate.records.groups import compare_groups
    from resight.evaluate.records.sets import write_rows

    if out is None and csv is None and not json_:
        raise UserError("--out is missing: the page to write, e.g. page.html (or --csv, or --json)")
    if csv is not None and csv.is_dir():
        raise UserError(f"--csv {csv}: is a folder; a table is a file")
    tables = [compare_groups(one.groups, baseline) for one in sets]
    rows = [
        {"set": one.name} | row
        for one, found in zip(sets, tables, strict=True)
        for table in found
        for row in table.rows()
    ]
    for one, found in zip(sets, tables, strict=True):
        for line in [*one.lines, *(text for table in found for text in table.notes)]:
            note(f"{one.name}: {line}" if one.name else line)
        count = sum(len(runs) for runs in one.groups.values())
        what = f"{len(one.groups)} methods, {count} runs"
        note(f"{one.name}: {what}" if one.name else what)
    if out is not None:
        from resight.evaluate.report.groups_page import Part, write_parts_page

        parts = [
            Part(one.name, one.groups, found, one.lines)
            for one, found in zip(sets, tables, strict=True)
        ]
        write_parts_page(out, parts)
    if csv is not None:
        write_rows(csv, rows)
    if json_:
        print_json({"rows": rows})
    for path in (out, csv):
        if path is not None:
            note(f"written: {path}") if json_ else print(path)
