"""Filters of a search: --where "camera != 'c3' and price < 20".

    filter = parse("brand in ('A', 'B') and not (price >= 20 or name like 'test%')")
    filter.mask(table)       # which rows pass
    to_sql(filter.tree, column, kinds)

A filter is parsed to a tree of its own and never becomes a part of another language's text.
Comparisons with nothing are unknown and don't pass, nor does their `not` (as in SQL).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.errors import UserError
from resight.search.where.parser import tree_of
from resight.search.where.rows import kind_of, passing
from resight.search.where.sql import to_sql
from resight.search.where.tree import Kind, Tree, columns_of

__all__ = ["Filter", "Kind", "kind_of", "parse", "to_sql"]


@dataclass(frozen=True)
class Filter:
    """A parsed filter: `text` as given, `tree` as meant."""

    text: str
    tree: Tree

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns that it asks for."""
        return columns_of(self.tree)

    def mask(self, table: pl.DataFrame) -> NDArray[np.bool_]:
        """(rows,) bool: the rows that pass.

        Raises UserError for a column that the table lacks, or one of lists.
        """
        self.check(table.columns)
        return passing(self.tree, table)

    def check(self, columns: list[str]) -> None:
        """Raises UserError for a column that isn't among these, with the nearest that is."""
        for name in sorted(self.columns - set(columns)):
            plain = {column.casefold(): column for column in reversed(columns)}
            near = difflib.get_close_matches(name.casefold(), plain, 1)
            hint = f"; did you mean {plain[near[0]]!r}?" if near else ";"
            listed = ", ".join(columns[:30]) + (", ..." if len(columns) > 30 else "")
            raise UserError(f"filter: no column {name!r}{hint} there are: {listed or 'none'}")


def parse(text: str) -> Filter:
    """The filter that a text says.

    Column names are bare (letters, digits, _), in `backticks` or "double quotes"; text stands in
    'single quotes', '' for one. Comparisons: = == != <> < <= > >=, in (...), not in (...),
    like 'abc%' (_ is one character, \\ takes the next as it is), is null, is not null; and, or,
    not, parentheses. Between `not`, `and` and `or`, the first binds closest.

    Raises UserError, one line: where, what was expected, what was found.
    """
    return Filter(text, tree_of(text))
