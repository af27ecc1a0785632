"""The slow, obvious twin of filters: row by row, with None for unknown."""

from __future__ import annotations

import math
import re
from typing import Any

from resight.search.where.tree import And, Compare, In, IsNull, Like, Not, Or, Tree

_NUMBER = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *", re.ASCII)


def passes(tree: Tree, row: dict[str, Any]) -> bool | None:
    """Whether one row passes; None where it can't be known."""
    if isinstance(tree, Not):
        inner = passes(tree.part, row)
        return None if inner is None else not inner
    if isinstance(tree, And | Or):
        found = {passes(part, row) for part in tree.parts}
        decides = isinstance(tree, Or)
        return decides if decides in found else (None if None in found else not decides)
    held = row[tree.column]
    held = None if isinstance(held, float) and math.isnan(held) else held
    if isinstance(tree, IsNull):
        return held is None
    if held is None:
        return None
    if isinstance(tree, Like):
        return like(_text(held), tree.pattern)
    if isinstance(tree, Compare):
        return compare(held, tree.op, tree.value)
    assert isinstance(tree, In)
    found = {compare(held, "=", value) for value in tree.values}
    return True if True in found else (None if None in found else False)


def compare(held: Any, op: str, value: Any) -> bool | None:
    left, right = alike(held, value)
    if left is None:
        return None
    return {
        "=": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[op]


def alike(held: Any, value: Any) -> tuple[Any, Any]:
    """Both as texts, or both as numbers; (None, ...) where what is held has no such reading."""
    if isinstance(held, bool):
        if isinstance(value, str) and value.lower() not in ("true", "false", "0", "1"):
            return _text(held), value
        return int(held), int(value.lower() in ("true", "1")) if isinstance(value, str) else value
    if isinstance(held, int | float):
        if isinstance(value, str):
            if not _NUMBER.fullmatch(value):
                return _text(held), value
            value = float(value)
        return held, value
    if isinstance(value, bool):
        return {"true": 1, "1": 1, "false": 0, "0": 0}.get(held.lower()), value
    if isinstance(value, int | float):
        return (float(held) if _NUMBER.fullmatch(held) else None), value
    return held, value


def like(text: str, pattern: str) -> bool:
    """By trying every length that a % may take."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(like(text[k:], pattern[1:]) for k in range(len(text) + 1))
    if pattern[0] == "\\":
        return text[:1] == pattern[1] and like(text[1:], pattern[2:])
    return bool(text) and pattern[0] in (text[0], "_") and like(text[1:], pattern[1:])


def _text(held: Any) -> str:
    return str(held).lower() if isinstance(held, bool) else str(held)
