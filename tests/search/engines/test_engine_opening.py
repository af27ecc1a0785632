"""The name of a gallery says which engine keeps it, or what is wrong with the name."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from resight.errors import UserError
from resight.search.engines.opening import is_server, open_engine


def test_folders_and_files(tmp_path: Path) -> None:
    for name in (str(tmp_path / "g"), f"sqlite:{tmp_path / 'h'}", f"sqlite:{tmp_path}/i.sqlite"):
        assert not is_server(name)
        with pytest.raises(UserError, match="no gallery is there"):
            open_engine(name, create=False)
        engine = open_engine(name)
        assert engine.counts() == (0, 0)
        engine.close()
        open_engine(name, create=False).close()
    assert (tmp_path / "g" / "gallery.sqlite").is_file() and (tmp_path / "i.sqlite").is_file()


def test_a_folder_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mysql:x").mkdir()
    open_engine("mysql:x").close()
    assert Path("mysql:x/gallery.sqlite").is_file()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mysql://host/db", "'mysql' is no engine"),
        ("sqlite:", "where"),
        ("qdrant:", "where"),
    ],
)
def test_wrong_names(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        open_engine(name)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("postgresql://host/db", "psycopg", "postgresql"),
        ("qdrant:http://host:6333/x", "qdrant_client", "qdrant"),
    ],
)
def test_a_missing_package(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(wanted: str, *rest: Any, **more: Any) -> Any:
        if wanted.split(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real(wanted, *rest, **more)

    for loaded in [m for m in sys.modules if m.startswith(f"resight.search.engines.{extra}")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=rf"pip install 'resight\[{extra}\]'"):
        open_engine(name)


def test_servers_that_are_not_there() -> None:
    pytest.importorskip("psycopg", exc_type=ImportError)
    with pytest.raises(UserError, match="can't be reached"):
        open_engine("postgresql://127.0.0.1:9/db?gallery=x", wait=0.1)
    pytest.importorskip("qdrant_client", exc_type=ImportError)
    with pytest.raises(UserError, match="can't be reached"):
        open_engine("qdrant:http://127.0.0.1:9/x", wait=0.1)
