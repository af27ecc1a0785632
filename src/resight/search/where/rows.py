"""Which rows of a table a filter passes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.errors import UserError
from resight.search.where.tree import (
    NUMBER,
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
    pattern_parts,
    reading,
)

Bools = NDArray[np.bool_]
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_META = set("\\.+*?()|[]{}^$#&-~")


def kind_of(dtype: pl.DataType) -> Kind | None:
    """The kind of a column of this type: None where its values can't be compared (lists)."""
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Boolean:
        return "truth"
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Duration):
        return None
    return "text"  # dates too: as 2026-07-31, times as 2026-07-31 08:15:00


def passing(tree: Tree, table: pl.DataFrame) -> Bools:
    """(rows,) bool: where `tree`, whose columns the table has, is true.

    Raises UserError for a column of lists, which has no order.
    """
    return _Rows(table).test(tree)[0]


class _Rows:
    """Tests of a table's rows; a column is read once each way."""

    def __init__(self, table: pl.DataFrame):
        self.table = table
        self.read: dict[tuple[str, Kind], pl.Series] = {}

    def test(self, tree: Tree) -> tuple[Bools, Bools]:
        """Where it is true and where it is false; elsewhere it is unknown."""
        if isinstance(tree, Not):
            yes, no = self.test(tree.part)
            return no, yes
        if isinstance(tree, And | Or):
            join, meet = (np.logical_and, np.logical_or)[:: 1 if isinstance(tree, And) else -1]
            yes, no = self.test(tree.parts[0])
            for part in tree.parts[1:]:
                more, fewer = self.test(part)
                yes, no = join(yes, more), meet(no, fewer)
            return yes, no
        if isinstance(tree, IsNull):
            column = self.table[tree.column]
            gone = column.is_null()
            if column.dtype.is_float():
                gone |= column.is_nan().fill_null(True)
            nothing = gone.to_numpy()
            return nothing, ~nothing
        if isinstance(tree, Like):
            return _sides(self.column(tree.column, "text").str.contains(_regex(tree.pattern)))
        kind = self.kind(tree.column)
        if isinstance(tree, Compare):
            how, value = reading(kind, tree.value)
            return _sides(_compare(self.column(tree.column, how), tree.op, value))
        return self.among(tree, kind)

    def among(self, tree: In, kind: Kind) -> tuple[Bools, Bools]:
        """One of the values: those that are read alike are looked up together."""
        readings: dict[Kind, list[Any]] = {}
        for value in tree.values:
            how, read = reading(kind, value)
            readings.setdefault(how, []).append(read)
        yes = np.zeros(self.table.height, np.bool_)
        no = ~yes
        for how, values in readings.items():
            column = self.column(tree.column, how)
            if column.dtype == pl.Int64:
                values = [int(value) for value in values if float(value).is_integer()]
                values = [value for value in values if -(2**63) <= value < 2**63]
            found = column.is_in(pl.Series(values, dtype=column.dtype).implode())
            more, fewer = _sides(pl.select(pl.when(column.is_not_null()).then(found)).to_series())
            yes, no = yes | more, no & fewer
        return yes, no

    def kind(self, name: str) -> Kind:
        kind = kind_of(self.table[name].dtype)
        if kind is None:
            raise UserError(
                f"filter: the column {name!r} holds {self.table[name].dtype}, which can't be "
                f"compared; only 'is null' and 'is not null' can be asked of it"
            )
        return kind

    def column(self, name: str, how: Kind) -> pl.Series:
        if (name, how) not in self.read:
            self.read[name, how] = _read(self.table[name], self.kind(name), how)
        return self.read[name, how]


def _read(column: pl.Series, kind: Kind, how: Kind) -> pl.Series:
    """A column as String, as Int64 or Float64, or as truths in Int64; null where it is neither."""
    if kind == "number":
        if column.dtype.is_float():
            column = column.fill_nan(None)
        if how == "text":
            return column.cast(pl.String)
        exact = column.dtype.is_integer() and column.dtype not in (pl.UInt64, pl.Int128)
        return column.cast(pl.Int64 if exact else pl.Float64)
    if kind == "truth" and how != "text":
        return column.cast(pl.Int64)
    text = column.cast(pl.String)
    if how == "text":
        return text
    if how == "truth":
        return text.str.to_lowercase().replace_strict(
            list(TRUTHS), list(TRUTHS.values()), default=None, return_dtype=pl.Int64
        )
    fits = text.str.contains(NUMBER)
    numbers = text.str.strip_chars(" ").cast(pl.Float64, strict=False)
    return pl.select(pl.when(fits).then(numbers)).to_series()


def _compare(column: pl.Series, op: str, value: str | int | float) -> pl.Series:
    if column.dtype == pl.Int64 and isinstance(value, float):
        column = column.cast(pl.Float64)
    if column.dtype == pl.Float64:
        value = float(value)
    compared: pl.Series = _OPERATORS[op](column, value)
    return compared


def _sides(truth: pl.Series) -> tuple[Bools, Bools]:
    """Where a column of truths is true, and where it is false."""
    return truth.fill_null(False).to_numpy(), (~truth).fill_null(False).to_numpy()


def _regex(pattern: str) -> str:
    parts = []
    for part in pattern_parts(pattern):
        if part is None or part == "":
            parts.append("." if part is None else ".*")
        else:
            parts.append("\\" + part if part in _META else part)
    return "(?s)^" + "".join(parts) + "$"
