"""A filter as SQL: every value a parameter, the names of columns only as the engine writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from resight.search.where.tree import (
    TRUTHS,
    And,
    Compare,
    In,
    IsNull,
    Kind,
    Like,
    Not,
    Or,
    Tree,
    reading,
)

Column = Callable[[str, str], str]
_TRUTHS = " ".join(f"WHEN '{word}' THEN {truth}" for word, truth in TRUTHS.items())


def to_sql(
    tree: Tree, column: Column, kinds: Mapping[str, Kind] | None = None
) -> tuple[str, list[Any]]:
    """A condition with %s for each parameter, and the parameters.

    `column(name, kind)` gives the SQL of a column read as "text" or "number": null where there is
    nothing; as a number also where the text is none (its pattern: tree.NUMBER). Texts must compare
    by their characters' codes (COLLATE "C" in PostgreSQL), LIKE must tell capitals apart (in
    SQLite: PRAGMA case_sensitive_like). Where a number is compared as text (price like '1%'), its
    text is the engine's. `column` is trusted: it must quote the name itself, and write %% for %.

    `kinds`: what each column holds (rows.kind_of of its type); one that isn't named holds text.
    With the right kinds the rows are those of `passing`.
    """
    parameters: list[Any] = []
    return _Writer(column, kinds or {}, parameters).write(tree), parameters


class _Writer:
    def __init__(self, column: Column, kinds: Mapping[str, Kind], parameters: list[Any]):
        self.given, self.kinds, self.parameters = column, kinds, parameters

    def write(self, tree: Tree) -> str:
        if isinstance(tree, And | Or):
            return self.join(tree.parts, " AND " if isinstance(tree, And) else " OR ")
        if isinstance(tree, Not):
            return f"(NOT {self.write(tree.part)})"
        kind = self.kinds.get(tree.column, "text")
        if isinstance(tree, IsNull):
            return f"({self.column(tree.column, kind, 'text')} IS NULL)"
        if isinstance(tree, Like):
            self.parameters.append(tree.pattern)
            return f"({self.column(tree.column, kind, 'text')} LIKE %s ESCAPE '\\')"
        if isinstance(tree, Compare):
            how, value = reading(kind, tree.value)
            self.parameters.append(value)
            op = "<>" if tree.op == "!=" else tree.op
            return f"({self.column(tree.column, kind, how)} {op} %s)"
        return self.among(tree, kind)

    def join(self, parts: tuple[Tree, ...], word: str) -> str:
        """Many parts by halves: SQLite takes no chain of more than 1,000."""
        if len(parts) <= 8:
            return "(" + word.join(map(self.write, parts)) + ")"
        half = len(parts) // 2
        return f"({self.join(parts[:half], word)}{word}{self.join(parts[half:], word)})"

    def among(self, tree: In, kind: Kind) -> str:
        readings: dict[Kind, list[Any]] = {}
        for value in tree.values:
            how, read = reading(kind, value)
            readings.setdefault(how, []).append(read)
        tests = []
        for how, values in readings.items():
            places = ", ".join(["%s"] * len(values))
            tests.append(f"{self.column(tree.column, kind, how)} IN ({places})")
            self.parameters += values
        return "(" + " OR ".join(tests) + ")"

    def column(self, name: str, kind: Kind, how: Kind) -> str:
        if how == "number":
            return self.given(name, "number")
        text = self.given(name, "text")
        if how == "text" and kind != "truth":
            return text
        truth = f"CASE lower({text}) {_TRUTHS} END"
        return (
            truth if how == "truth" else f"CASE {truth} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END"
        )
