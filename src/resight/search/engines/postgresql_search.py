"""Searching inside PostgreSQL: pgvector's index for candidates, the stored vectors for the order.

Without an index, or asked to be exact, every vector that passes the filter is looked at. The index
(HNSW) is over unit vectors in half precision, which halves it and costs nothing, as what it finds
is compared again in float64. A filter that few rows pass is looked at row by row; one that many
pass is asked of the index, which goes on until it has enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from resight.errors import UserError
from resight.search.engines.contract import Near
from resight.search.engines.nearness import ordered
from resight.search.engines.postgresql_link import AsVector, Link
from resight.search.index import unit
from resight.search.where.sql import to_sql
from resight.search.where.tree import NUMBER, Kind, Tree, columns_of

INDEXED = 4000  # dimensions that pgvector's index takes in half precision
FEW = 50_000  # rows that pass a filter and are looked at one by one
_OVER = 16  # candidates beside those asked for: their order is settled in float64
_NUMBERS = ("id", "object_id", "bytes", "width", "height")
_TEXTS = {"object": "o.name", "path": "i.path", "camera": "i.camera", "split": "i.split"}


def kinds_of(link: Link, names: frozenset[str]) -> dict[str, Kind]:
    """What columns hold: numbers, truths, or text (also where values are of several kinds)."""
    kinds: dict[str, Kind] = dict.fromkeys(_NUMBERS, "number")
    told: dict[str, Kind] = {"number": "number", "boolean": "truth"}
    for name in names - set(_NUMBERS) - set(_TEXTS):
        rows = link.run(
            "SELECT DISTINCT json_typeof(columns -> %s) FROM images "
            "WHERE json_typeof(columns -> %s) <> 'null'",
            [name, name],
        )
        found = {told.get(str(row[0]), "text") for row in rows}
        kinds[name] = found.pop() if len(found) == 1 else "text"
    return kinds


def column_sql(name: str, how: str) -> str:
    """A column of `images i LEFT JOIN objects o` as text or number; null where it is none."""
    if name in _NUMBERS:
        plain = "COALESCE(i.object, 0)" if name == "object_id" else f"i.{name}"
        return plain if how == "number" else f'({plain})::text COLLATE "C"'
    text = _TEXTS.get(name)
    if text is None:
        quoted = sql.Literal(name).as_string(None).replace("%", "%%")
        text = f"(i.columns ->> {quoted})"
    if how == "number":
        return f"CASE WHEN {text} ~ '{NUMBER}' THEN TRIM({text})::double precision END"
    return f'{text} COLLATE "C"'


class Searching:
    """One generation's tables, searched."""

    def __init__(self, link: Link, generation: int, where: Tree | None):
        self._link, self._generation = link, generation
        self._where = "TRUE"
        self._values: list[Any] = []
        if where is not None:
            kinds: Mapping[str, Kind] = kinds_of(link, columns_of(where))
            self._where, self._values = to_sql(where, column_sql, kinds)

    def nearest(
        self, queries: NDArray[np.float32], fetch: int, *, level: str, exact: bool
    ) -> list[Near]:
        """The `fetch` nearest images, or objects (images of no object stand alone)."""
        asked = unit(queries)
        dim = asked.shape[1]
        exact = exact or not self._indexed(level) or self._few()
        if not exact:
            effort = str(max(200, min(1000, 4 * (fetch + _OVER))))
            self._link.run(
                "SELECT set_config('hnsw.ef_search', %s, false), "
                "set_config('hnsw.iterative_scan', 'relaxed_order', false)",
                [effort],
            )
        answers = []
        for query in asked:
            found = self._candidates(query, fetch + _OVER, level, dim, exact)
            if not exact and len(found) < fetch:
                found = self._candidates(query, fetch + _OVER, level, dim, True)
            if level == "object":
                found += self._alone(query, fetch + _OVER)
            answers.append(ordered(query, found, fetch))
        return answers

    def _candidates(
        self, query: NDArray[np.float32], limit: int, level: str, dim: int, exact: bool
    ) -> list[Any]:
        values = [*self._values, AsVector(query), limit]
        if level == "image":
            length_1, what = "l2_normalize(v.vector)", "v.image, COALESCE(i.object, 0), v.vector"
            of = f"{_joined(f'vectors_{self._generation:d}')} WHERE {self._where}"
        else:
            length_1, what = "v.vector", "v.object, v.object, v.vector"
            of = f"centroids_{self._generation:d} v WHERE {self._any_image()}"
        order = f"v.vector <=> %s::vector({dim:d})"
        if not exact:
            order = f"{length_1}::halfvec({dim:d}) <#> %s::vector({dim:d})::halfvec({dim:d})"
        if level == "image" and self._where == "TRUE":  # the index first, then the rows
            near = f"(SELECT * FROM vectors_{self._generation:d} v ORDER BY {order} LIMIT %s)"
            return self._link.run(f"SELECT {what} FROM {_joined(near)}", values)
        return self._link.run(f"SELECT {what} FROM {of} ORDER BY {order} LIMIT %s", values)

    def _alone(self, query: NDArray[np.float32], limit: int) -> list[Any]:
        of = _joined(f"vectors_{self._generation:d}")
        return self._link.run(
            f"SELECT -v.image, 0::bigint, v.vector FROM {of} WHERE i.object IS NULL "
            f"AND {self._where} ORDER BY v.vector <=> %s LIMIT %s",
            [*self._values, AsVector(query), limit],
        )

    def _any_image(self) -> str:
        if self._where == "TRUE":
            return "TRUE"
        return (
            "EXISTS (SELECT 1 FROM images i JOIN objects o ON o.id = i.object "
            f"WHERE i.object = v.object AND {self._where})"
        )

    def _few(self) -> bool:
        """Whether so few rows pass the filter that looking at each is no more work."""
        if self._where == "TRUE":
            return False
        rows = self._link.run(
            "SELECT COUNT(*) FROM (SELECT 1 FROM images i LEFT JOIN objects o ON o.id = i.object "
            f"WHERE {self._where} LIMIT %s) f",
            [*self._values, FEW + 1],
        )
        return int(rows[0][0]) <= FEW

    def _indexed(self, level: str) -> bool:
        name = index_name(self._generation, level)
        return bool(self._link.run("SELECT to_regclass(%s) IS NOT NULL", [name])[0][0])


def build_index(link: Link, generation: int, level: str, dim: int) -> None:
    """pgvector's index over a level, if it is not there.

    Raises UserError: more dimensions than it takes.
    """
    if dim > INDEXED:
        raise UserError(
            f"{link.name}: pgvector's index takes {INDEXED:,} dimensions, these vectors have "
            f"{dim:,}; searches look at every vector"
        )
    table = f"{'vectors' if level == 'image' else 'centroids'}_{generation:d}"
    length_1 = "l2_normalize(vector)" if level == "image" else "vector"
    link.run(
        f"CREATE INDEX IF NOT EXISTS {index_name(generation, level)} ON {table} "
        f"USING hnsw (({length_1}::halfvec({dim:d})) halfvec_ip_ops) "
        "WITH (m = 16, ef_construction = 128)"
    )


def index_name(generation: int, level: str) -> str:
    """The name of a level's index."""
    return f"near_{level}_{generation:d}"


def _joined(table: str) -> str:
    return f"{table} v JOIN images i ON i.id = v.image LEFT JOIN objects o ON o.id = i.object"
