"""The engine that a name stands for.

FOLDER, FILE.sqlite, sqlite:PATH     one SQLite file
postgresql://...?gallery=NAME        a schema of a PostgreSQL database
qdrant:http://HOST:6333/NAME         collections on a Qdrant server
qdrant:FOLDER                        Qdrant without a server, for one process
"""

from __future__ import annotations

import re
from pathlib import Path

from resight.errors import UserError
from resight.search.engines.contract import Engine

DATABASE = "gallery.sqlite"
_SCHEME = re.compile(r"([a-z][a-z0-9+.]+):", re.IGNORECASE)


def is_server(name: str) -> bool:
    """Whether a gallery of this name is kept elsewhere than in a folder of ours."""
    return scheme_of(name) in ("postgresql", "postgres", "qdrant")


def scheme_of(name: str) -> str:
    """What stands before the first colon, in small letters; "" for a path."""
    found = _SCHEME.match(name)
    return found[1].lower() if found and not Path(name).exists() else ""


def open_engine(name: str, *, create: bool = True, wait: float = 60.0) -> Engine:
    """The engine of this name; `create`: a new, empty gallery where there is none.

    `wait`: seconds to wait for another writer. Raises UserError: an unknown scheme, a package
    that is missing, a server that can't be reached, no gallery there (unless `create`).
    """
    scheme = scheme_of(name)
    if scheme in ("", "sqlite"):
        return _sqlite(name.partition(":")[2] if scheme else name, name, create, wait)
    if scheme in ("postgresql", "postgres"):
        try:
            from resight.search.engines.postgresql import PostgresEngine
        except ImportError as error:
            raise _missing(name, "psycopg", "postgresql", error) from None
        return PostgresEngine(name, create=create, wait=wait)
    if scheme == "qdrant":
        if not name.partition(":")[2]:
            raise UserError(f"{name}: where? qdrant:http://HOST:6333/NAME, or qdrant:FOLDER")
        try:
            from resight.search.engines.qdrant import QdrantEngine
        except ImportError as error:
            raise _missing(name, "qdrant-client", "qdrant", error) from None
        return QdrantEngine(name, create=create, wait=wait)
    raise UserError(
        f"{name}: {scheme!r} is no engine; take a folder, sqlite:PATH, postgresql://... or "
        "qdrant:..."
    )


def _sqlite(path: str, name: str, create: bool, wait: float) -> Engine:
    from resight.search.engines.sqlite import SqliteEngine

    if not path:
        raise UserError(f"{name}: where? sqlite:PATH")
    where = Path(path)
    if where.suffix not in (".sqlite", ".db"):
        where = where / DATABASE
    if not create and not where.is_file():
        raise UserError(f"{where}: no gallery is there")
    return SqliteEngine(where.absolute(), wait=wait)


def _missing(name: str, package: str, extra: str, error: ImportError) -> UserError:
    return UserError(
        f"{name}: needs {package}, which can't be loaded ({error}); pip install 'resight[{extra}]'"
    )
