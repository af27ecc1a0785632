"""How engines write down what has no type of its own there: boxes, and the user's columns."""

from __future__ import annotations

import json
import math
from typing import Any

from resight.search.engines.contract import Box, Place

_MARK = "$resight"
_WHOLE = 2**63  # numbers from here on are no longer kept exactly by every engine


def box_text(box: Box | None) -> str:
    """A box as text; "" for none. Equal boxes have equal texts."""
    return "" if box is None else json.dumps([float(side) for side in box])


def parse_box(text: str) -> Box | None:
    """The box again."""
    if not text:
        return None
    x1, y1, x2, y2 = json.loads(text)
    return x1, y1, x2, y2


def place_text(place: Place) -> str:
    """A place as one text; equal places have equal texts."""
    return f"{place.root}|{box_text(place.box)}|{place.path}"


def plain(value: Any) -> Any:
    """A value that strict JSON can hold: NaN, infinities and huge whole numbers are marked."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: str(value)}
    if isinstance(value, int) and abs(value) >= _WHOLE:
        return {_MARK: str(value)}
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def own(value: Any) -> Any:
    """The value again."""
    if isinstance(value, dict):
        if set(value) == {_MARK}:
            text = value[_MARK]
            return int(text) if text.lstrip("-").isdigit() else float(text)
        return {key: own(one) for key, one in value.items()}
    if isinstance(value, list):
        return [own(one) for one in value]
    return value


def to_json(value: Any) -> str:
    """Strict JSON of a value."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
