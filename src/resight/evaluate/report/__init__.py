"""One self-contained HTML page about scores."""

from __future__ import annotations

from resight.evaluate.report.page import write_report as write_report

__all__ = ["write_report"]
