"""Filters: text to tree and back, rows against a slow oracle, SQL against the same, errors."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles.filters import passes

from resight.errors import UserError
from resight.search.filters import Filter, kind_of, parse, to_sql
from resight.search.where.tree import (
    OPERATORS,
    And,
    Compare,
    In,
    IsNull,
    Like,
    Not,
    Or,
    number_in,
    text_of,
)

SCHEMA = {
    "name": pl.String,
    "size": pl.String,
    "price": pl.Float64,
    "year": pl.Int64,
    "sold": pl.Boolean,
}
NAMES = [*SCHEMA]
# Few of each, so that they meet; decimals that every engine writes alike.
TEXTS = ["", "a", "A", "ab", "b%", "a_b", "O'Brien", "é", "a\nb", "12", "012", "1.5", " 7 ", "1e1"]
TEXTS += ["true", "False", "0", "x\\y", '"', ".5", "5.", "+3", "1_000", "inf", "nan", "-"]
FLOATS = [0.5, 1.5, 12.25, -3.5, 1e6, float("nan")]
INTS = [0, 1, 12, -3, 2024, 2**53 + 1, 2**53]
values = st.one_of(
    st.sampled_from(TEXTS), st.sampled_from(FLOATS[:-1]), st.sampled_from(INTS[:-2]), st.booleans()
)
patterns = st.lists(st.sampled_from([*"ab%_%_1.\n'[", "\\%", "\\_", "\\\\"]), max_size=5)
names = st.sampled_from(NAMES)


def trees(name: st.SearchStrategy[str] = names, value: Any = values) -> st.SearchStrategy[Any]:
    leaves = st.one_of(
        st.builds(Compare, name, st.sampled_from(OPERATORS), value),
        st.builds(In, name, st.lists(value, min_size=1, max_size=4).map(tuple)),
        st.builds(IsNull, name),
        st.builds(Like, name, patterns.map("".join)),
    )
    several = lambda inner: st.lists(inner, min_size=2, max_size=3).map(tuple)  # noqa: E731
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(And, several(inner)), st.builds(Or, several(inner)), st.builds(Not, inner)
        ),
        max_leaves=6,
    )


rows = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.none() | st.sampled_from(TEXTS),
            "size": st.none() | st.sampled_from(TEXTS),
            "price": st.none() | st.sampled_from(FLOATS),
            "year": st.none() | st.sampled_from(INTS),
            "sold": st.none() | st.booleans(),
        }
    ),
    max_size=12,
)
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)


@given(trees(plain.filter(bool), plain | numbers | st.booleans()))
def test_a_tree_comes_back_from_its_text(tree):
    assert repr(parse(text_of(tree)).tree) == repr(tree)  # repr: 1 and true are equal to Python


@given(trees(), rows)
def test_rows_pass_as_one_by_one(tree, table):
    mask = Filter("", tree).mask(pl.DataFrame(table, schema=SCHEMA))
    assert mask.tolist() == [passes(tree, row) is True for row in table]


def _sql_column(name: str, kind: str) -> str:
    path = "$." + json.dumps(name)
    return f"as_{kind}(json_extract(columns, '{path}'))"


def _as_number(held: Any) -> Any:
    return number_in(held) if isinstance(held, str) else held


def _as_text(held: Any) -> Any:
    return None if held is None else str(held)


@pytest.fixture(scope="module")
def database():
    database = sqlite3.connect(":memory:")
    database.create_function("as_number", 1, _as_number, deterministic=True)
    database.create_function("as_text", 1, _as_text, deterministic=True)
    database.execute("PRAGMA case_sensitive_like = ON")
    database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, columns TEXT)")
    yield database
    database.close()


@given(tree=trees(), table=rows)
def test_sql_gives_the_same_rows(database, tree, table):
    frame = pl.DataFrame(table, schema=SCHEMA)
    kinds = {name: kind_of(dtype) for name, dtype in frame.schema.items()}
    database.execute("DELETE FROM items")
    held = [{k: None if v != v else v for k, v in row.items()} for row in table]
    database.executemany("INSERT INTO items VALUES (?, ?)", enumerate(map(json.dumps, held)))
    sql, parameters = to_sql(tree, _sql_column, kinds)
    assert sql.count("%s") == len(parameters)
    found = database.execute(
        f"SELECT id FROM items WHERE {sql.replace('%s', '?')} ORDER BY id", parameters
    ).fetchall()
    assert [row for (row,) in found] == Filter("", tree).mask(frame).nonzero()[0].tolist()


def test_long_chains_in_sql(database):
    sql, parameters = to_sql(parse(" or ".join(["a=1"] * 1400)).tree, lambda name, kind: "1")
    found = database.execute(f"SELECT {sql.replace('%s', '?')}", parameters).fetchone()
    assert found == (1,)


def test_values_are_parameters_never_sql():
    evil = "x'; DROP TABLE items; --"
    tree = parse("name = 'x''; DROP TABLE items; --' or name in ('%s', 1)").tree
    sql, parameters = to_sql(tree, lambda name, kind: f"{kind}_column")
    assert sql == "((text_column = %s) OR (text_column IN (%s) OR number_column IN (%s)))"
    assert parameters == [evil, "%s", 1]


def test_what_is_written():
    tree = parse(""" camera != 'c3' AND price<20 or Not `my ``col` IS NOT null""").tree
    camera, price = Compare("camera", "!=", "c3"), Compare("price", "<", 20)
    assert tree == Or((And((camera, price)), Not(Not(IsNull("my `col")))))
    assert parse('"a b" == "c d"').tree == Compare("a b", "=", "c d")
    assert parse("größe_2 <> 'it''s'").tree == Compare("größe_2", "!=", "it's")
    assert parse("x not in (1, -2.5e1, TRUE)").tree == Not(In("x", (1, -25.0, True)))
    assert parse("x not like 'a\\%%'").tree == Not(Like("x", "a\\%%"))
    assert parse("((2x >= .5))").tree == Compare("2x", ">=", 0.5)
    assert parse("not a=1 and b=2").tree == And((Not(Compare("a", "=", 1)), Compare("b", "=", 2)))
    assert parse("a=1 or b in (2)").columns == {"a", "b"}


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "filter '', character 1: expected a column's name, the filter ends"),
        ("camera != c3", "character 11: expected a value (a number, 'text' in single quotes, "),
        ("camera != c3", "found c3; as text it is 'c3'"),
        ("camera = null", "write 'is null'"),
        ("camera", "character 7: expected a comparison (=, !=, <, <=, >, >=, in, like, is null)"),
        ("a = 1 b = 2", "character 7: expected 'and', 'or' or the end, found b"),
        ("(a = 1", "character 7: expected 'and', 'or' or ')', the filter ends"),
        ("a in 1", "character 6: expected '(' and values, found 1"),
        ("a in ()", "character 7: expected a value"),
        ("a in (1 2)", "character 9: expected ',' or ')', found 2"),
        ("a is 1", "expected 'null' or 'not null', found 1"),
        ("a not 1", "expected 'in' or 'like', found 1"),
        ("a like 5", "expected a pattern such as 'abc%', found 5"),
        ("a like 'x\\'", "a pattern ends in \\"),
        ("20 > a", "character 1: expected a column's name, found 20; a column is written to"),
        ("like = 1", "a column of this name stands in backticks: `like`"),
        ("a = 'b", "character 5: the quote ' is never closed"),
        ("a = ‘b’", "character 5: ‘ is no quote here; write '"),
        ("a = 1 && b = 2", "character 7: '&' means nothing here; write 'and'"),
        ("a.b = 1", "character 2: '.' means nothing here"),
        ("a = 1e999", "expected a number below 1e308"),
        ("a = 'x\0'", "character 5: it holds characters that no text can have"),
        ("a = '\udcff'", "it holds characters that no text can have"),
        ("a\n= \n\n;", "character 7: ';' means nothing here"),
    ],
)
def test_mistakes_are_named(text, said):
    with pytest.raises(UserError) as error:
        parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_limits():
    with pytest.raises(UserError, match="10020 characters; at most 10000"):
        parse("a = " + "1" * 10_016)
    for text in ("(" * 101 + "a=1" + ")" * 101, "not " * 101 + "a=1"):
        with pytest.raises(UserError, match="nested deeper than 100"):
            parse(text)
    deep = parse("not (" * 50 + "a=1" + ")" * 50)
    assert deep.mask(pl.DataFrame({"a": [1, 2]})).tolist() == [True, False]
    wide = parse(" or ".join(["a=1"] * 1400))
    assert wide.mask(pl.DataFrame({"a": [1, 2]})).tolist() == [True, False]
    assert parse(f"a like '{'_%' * 4000}'").mask(pl.DataFrame({"a": ["b"]})).tolist() == [False]


def test_columns_that_are_not_there_or_hold_lists():
    table = pl.DataFrame({"Camera": ["c1"], "box": [[1.0, 2.0]], "price": [1]})
    said = "no column 'camra'; did you mean 'Camera'\\? there are: Camera, box, price"
    with pytest.raises(UserError, match=said):
        parse("camra = 'c1'").mask(table)
    with pytest.raises(UserError, match="no column 'xyz'; there are: Camera"):
        parse("price = 1 or xyz = 2").mask(table)
    with pytest.raises(UserError, match=r"'box' holds List.*can't be compared"):
        parse("box = 1").mask(table)
    assert parse("box is not null").mask(table).tolist() == [True]


def test_other_types_of_columns():
    table = pl.DataFrame(
        {
            "day": ["2026-07-30", "2026-07-31", None],
            "kind": ["a", "b", None],
            "big": [2**63, 1, None],
            "none": [None, None, None],
        },
        schema_overrides={"big": pl.UInt64},
    ).with_columns(pl.col("day").str.to_date(), pl.col("kind").cast(pl.Categorical))
    assert parse("day > '2026-07-30'").mask(table).tolist() == [False, True, False]
    assert parse("kind in ('a') or big > 5").mask(table).tolist() == [True, False, False]
    assert parse("none is null and not none = 1").mask(table).tolist() == [False] * 3
    assert parse("big in (1, 2.5)").mask(table).tolist() == [False, True, False]
    assert parse("day = 1 or kind = 'a'").mask(table[:0]).tolist() == []
