"""One page about any set of evaluations: a table a protocol, published figures beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resight.evaluate.records.compare import span
from resight.evaluate.records.published import beside
from resight.evaluate.records.record import Record, metrics, primary
from resight.evaluate.report.render import write_page


def write_runs_page(path: Path, records: Sequence[Record], names: Sequence[str]) -> Path:
    """Write one HTML page, with everything it needs inside, about these evaluations.

    Returns `path`. Raises ValueError without records, OSError when the page can't be written.
    """
    if not records:
        raise ValueError("a page needs at least one evaluation")
    runs = list(zip(names, records, strict=True))
    order = dict.fromkeys(name for record in records for name in record.protocols)
    return write_page(
        Path(path),
        "runs.html.j2",
        title=names[0] if len(names) == 1 else f"{len(names)} evaluations",
        runs=runs,
        sections=[
            _section(name, [(n, one) for n, one in runs if name in one.protocols]) for name in order
        ],
    )


def _section(protocol: str, runs: Sequence[tuple[str, Record]]) -> dict[str, Any]:
    """One protocol: its table, what to mind, and published figures where there are any."""
    summaries = [record.summaries[protocol] for _, record in runs]
    columns = list(dict.fromkeys(metric for one in summaries for metric in metrics(one)))
    best = primary(summaries[0])
    tops = [one[best] for one in summaries if _known(one.get(best))]
    rows = []
    for name, record in runs:
        summary = record.summaries[protocol]
        cells = []
        for metric in columns:
            value, ends = summary.get(metric), record.interval(protocol, metric)
            top = metric == best and len(tops) > 1 and value == max(tops)
            value = value if _known(value) else None
            cells.append({"value": value, "interval": span(ends) if ends else "", "top": top})
        counts = [summary.get(key) for key in ("queries", "gallery")]
        rows.append({"name": name, "cells": cells, "counts": counts})
    value = runs[0][1].protocols[protocol]
    return {
        "protocol": protocol,
        "title": summaries[0].get("title") or protocol,
        "over": summaries[0].get("intervals_over") or "queries",
        "columns": columns,
        "rows": rows,
        "notes": _notes(protocol, runs),
        "json": json.dumps(value, indent=2, ensure_ascii=False),
        "published": beside(
            protocol, [(name, record.summaries[protocol]) for name, record in runs]
        ),
    }


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def _notes(protocol: str, runs: Sequence[tuple[str, Record]]) -> list[str]:
    """What keeps the rows of a table from being compared, and what the scores themselves note."""
    notes = []
    first_name, first = runs[0]
    for name, record in runs[1:]:
        mine, other = ({**r.protocols[protocol], "notes": None} for r in (first, record))
        if mine != other:
            notes.append(f"another protocol of the same name in {name} than in {first_name}")
    prints = {str(record.data.get("fingerprint")) for _, record in runs}
    if len(prints) > 1:
        said = ", ".join(f"{str(r.data.get('fingerprint'))[:8]} of {name}" for name, r in runs)
        notes.append(f"not all on the same images ({said})")
    noted = [str(r.summaries[protocol].get("note") or "") for _, r in runs]
    return notes + [note for note in dict.fromkeys(noted) if note]
