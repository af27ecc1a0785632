"""Logs: a JSON object a line on stderr. No image, no key, no text of a client is in them."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


class JsonLines(logging.Formatter):
    """{"time", "level", "event", ...}; what is given as extra={"told": {...}} stands beside."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"time": f"{moment}.{int(record.msecs):03d}Z"}
        line |= {"level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "told", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: int = logging.INFO) -> None:
    """Our own lines and uvicorn's to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("resight.serve", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        own = name in ("resight.serve", "uvicorn")
        logger.handlers = [handler] if own else []
        logger.propagate = not own
        logger.setLevel(level if name != "uvicorn.access" else logging.CRITICAL)
    logging.getLogger("resight.serve").propagate = False
