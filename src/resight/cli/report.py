"""`resight report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli.compare import RUN_HELP, check_page


def report(
    runs: Annotated[list[str], typer.Argument(help=RUN_HELP + " Any number.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The HTML page.")] = None,
) -> None:
    """One page about evaluations: a table for each protocol, with published figures beside it.

    Examples:

      resight report evaluations/market --out market.html

      resight report runs/* --out all.html
    """
    from resight.cli.common import note
    from resight.errors import UserError
    from resight.evaluate.records.record import labels, load_records
    from resight.evaluate.report.runs_page import write_runs_page

    if out is None:
        raise UserError("--out is missing: the page to write, e.g. page.html")
    check_page(out)
    records = load_records(runs)
    write_runs_page(out, records, labels(records))
    note(f"{len(records)} evaluations" if len(records) > 1 else "1 evaluation")
    print(out)
