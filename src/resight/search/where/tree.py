"""The tree of a filter, and how a value is held against a column.

A comparison is true, false or unknown, as in SQL: with nothing (null, NaN) it is unknown, `not`
leaves unknown as it is, and only what is true passes.

Files often hold numbers as text. So the value and the kind of the column together say how the
column is read (`reading`): as text, as a number or as a truth.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Value = str | int | float | bool
Kind = Literal["text", "number", "truth"]

# The texts that are numbers; it means the same to Python, Rust and PostgreSQL.
NUMBER = r"^ *[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)? *$"
# The texts that are truths, in small letters.
TRUTHS = {"true": 1, "1": 1, "false": 0, "0": 0}
OPERATORS = ("=", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True)
class Compare:
    """`column op value`, op one of OPERATORS."""

    column: str
    op: str
    value: Value


@dataclass(frozen=True)
class In:
    """`column in (values)`: equal to one of them."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class IsNull:
    """`column is null`: never unknown."""

    column: str


@dataclass(frozen=True)
class Like:
    """`column like pattern`, capitals matter.

    % stands for any characters, _ for one; \\ takes the next one as it is.
    """

    column: str
    pattern: str


@dataclass(frozen=True)
class And:
    """All parts, two or more."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Or:
    """One part at least, of two or more."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Not:
    """True where the part is false."""

    part: Tree


Tree = Compare | In | IsNull | Like | And | Or | Not


def columns_of(tree: Tree) -> frozenset[str]:
    """The names of all columns in a tree."""
    if isinstance(tree, And | Or):
        return frozenset().union(*map(columns_of, tree.parts))
    return columns_of(tree.part) if isinstance(tree, Not) else frozenset({tree.column})


def text_of(tree: Tree) -> str:
    """A text that parses to this tree again."""
    if isinstance(tree, And | Or):
        word = " and " if isinstance(tree, And) else " or "
        return word.join(
            f"({text_of(part)})" if isinstance(part, And | Or) else text_of(part)
            for part in tree.parts
        )
    if isinstance(tree, Not):
        return f"not ({text_of(tree.part)})"
    name = "`" + tree.column.replace("`", "``") + "`"
    if isinstance(tree, Compare):
        return f"{name} {tree.op} {_literal(tree.value)}"
    if isinstance(tree, In):
        return f"{name} in ({', '.join(map(_literal, tree.values))})"
    return f"{name} is null" if isinstance(tree, IsNull) else f"{name} like {_quoted(tree.pattern)}"


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def number_in(text: str) -> int | float | None:
    """The number that a text is, None where it is none: a whole one within 64 bits as an int."""
    if not re.fullmatch(NUMBER[1:-1], text):
        return None
    value = float(text)
    if value.is_integer() and text.strip(" ").lstrip("+-").isdigit():
        whole = int(text)
        return whole if -(2**63) <= whole < 2**63 else value
    return value


def reading(kind: Kind, value: Value) -> tuple[Kind, str | int | float]:
    """How a column of this kind is read beside this value, and the value read the same way.

    A number makes a text column be read as numbers, true and false as truths: what is neither is
    unknown. A text that is a number is one beside a column of numbers; else they are compared as
    texts. Truths are 1 and 0.
    """
    if isinstance(value, bool):
        return ("number" if kind == "number" else "truth"), int(value)
    if isinstance(value, int | float):
        return ("truth" if kind == "truth" else "number"), value
    if kind == "number":
        number = number_in(value)
        if number is not None and math.isfinite(number):
            return "number", number
    if kind == "truth" and value.lower() in TRUTHS:
        return "truth", TRUTHS[value.lower()]
    return "text", value


def pattern_parts(pattern: str) -> list[str | None]:
    """A pattern as literal characters, None for one (_) and "" for any number of them (%)."""
    parts: list[str | None] = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            parts.append(next(characters))
        elif character == "_":
            parts.append(None)
        elif character != "%":
            parts.append(character)
        elif not parts or parts[-1] != "":
            parts.append("")
    return parts
