"""One contract, every engine: what it keeps, in which order, and what a failure leaves."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resight.errors import UserError
from resight.search.engines.contract import Engine, LeftOut, Place, Row, Sum
from storages import KINDS, Storage, storage

DIM = 5


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    with storage(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def engine(place: Storage) -> Engine:
    return place.open()


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, DIM).astype(np.float32)


def row(name: str, object: str | None = "cup", seed: int = 1, **more: Any) -> Row:
    given = {"place": Place(1, name), "object": object, "given": object, "vector": vector(seed)}
    return Row(**(given | more))


def put(engine: Engine, *rows: Row) -> list[int]:
    with engine.writing("a test") as writer:
        return writer.put(rows)


def kept(engine: Engine) -> list[Row]:
    return engine.rows(engine.ids())


FULL = Row(
    place=Place(1, "a folder/é ☃.png", (1.0, 2.5, 30.0, 0.1 + 0.2)),
    object="Straße 7",
    given="strasse",
    camera="c1",
    split="test",
    columns={"price": 1.25, "n": 3, "name": "it's", "tags": ["a", "b"], "new": True},
    content="ab" * 32,
    bytes=5_000_000_000,
    mtime=1_700_000_000_123_456_789,
    width=640,
    height=480,
    thumbnail=b"\xff\xd8\x00jpeg",
)


def test_new_is_empty(engine: Engine) -> None:
    assert engine.counts() == (0, 0) and engine.ids() == [] and engine.rows([1]) == []
    assert engine.sums() == [] and engine.roots() == [] and engine.objects() == []
    assert engine.sizes([1]) == set() and engine.known([Place(1, "a")]) == {}
    assert engine.left_out([Place(1, "a")]) == {} and engine.thumbnail(1) is None
    assert engine.table(["camera", "price"]) == {"id": [], "camera": []}
    assert list(engine.every_vector()) == [] and len(engine.vectors([1])[0]) == 0
    assert engine.images_of("x") == [] and engine.by_content(["x"]) == []
    assert engine.object_names([1]) == {} and engine.sums_by_id([1]) == []
    meta = engine.meta()
    assert meta["version"] == engine.version() and meta["generation"] == 1


def test_a_row_comes_back_whole(place: Storage) -> None:
    engine = place.open()
    (id_,) = put(engine, replace(FULL, vector=vector(3)))
    engine = place.again(engine)
    (found,) = engine.rows([id_], thumbnails=True)
    assert found.object_id > 0 and found.vector is None
    assert found == replace(FULL, id=id_, object_id=found.object_id)
    assert engine.rows([id_])[0].thumbnail is None
    assert engine.thumbnail(id_) == FULL.thumbnail
    assert type(found.columns["price"]) is float and type(found.columns["n"]) is int
    ids, objects, vectors = engine.vectors([id_])
    assert ids.tolist() == [id_] and objects.tolist() == [found.object_id]
    assert vectors.dtype == np.float32 and vectors.tobytes() == vector(3).tobytes()


def test_odd_columns(engine: Engine) -> None:
    odd = {"nan": math.nan, "inf": -math.inf, "big": 10**25, "far": 1e23, "minus": -0.0, "s": ""}
    (id_,) = put(engine, row("a", columns=odd))
    found = engine.rows([id_])[0].columns
    assert math.isnan(found.pop("nan"))
    assert found == {key: value for key, value in odd.items() if key != "nan"}
    assert type(found["far"]) is float
    assert engine.table(["far"])["far"] == [1e23]


def test_a_row_without_anything(engine: Engine) -> None:
    first, second = put(engine, row("a"), Row(vector=vector(2)))
    found = engine.rows([second])[0]
    assert found == Row(id=second)
    assert engine.vectors([first, second])[1].tolist()[1] == 0
    (third,) = put(engine, Row(place=Place(1, "b")))  # without vector
    assert engine.vectors([third])[0].tolist() == []
    assert [len(part[0]) for part in engine.every_vector()] == [2]
    assert engine.counts() == (3, 1)


def test_ids_rise_and_are_never_given_twice(place: Storage) -> None:
    engine = place.open()
    ids = put(engine, *(row(f"{n}", seed=n) for n in range(5)))
    assert ids == sorted(ids) and min(ids) > 0
    with engine.writing("a test") as writer:
        writer.delete(ids[3:])
    engine = place.again(engine)
    (later,) = put(engine, row("new"))
    assert later > max(ids)
    (given,) = put(engine, row("of its own", id=500))  # as a copy does
    assert given == 500 and put(engine, row("after")) > [500]
    assert engine.ids(after=ids[1], limit=2) == [ids[2], later]
    assert engine.ids(limit=0) == []
    assert [r.id for r in engine.rows([500, 9999, ids[0]])] == [500, ids[0]]


def test_put_in_place_keeps_vector_and_picture(engine: Engine) -> None:
    (id_,) = put(engine, replace(FULL, vector=vector(3)))
    put(engine, Row(id=id_, place=Place(2, "b"), object="plate"))
    (found,) = engine.rows([id_], thumbnails=True)
    assert (found.object, found.camera, found.columns) == ("plate", None, {})
    assert found.content is None and found.thumbnail == FULL.thumbnail
    assert engine.vectors([id_])[2][0].tobytes() == vector(3).tobytes()
    put(engine, Row(id=id_, vector=vector(4), thumbnail=b"other"))
    assert engine.vectors([id_])[2][0].tobytes() == vector(4).tobytes()
    assert engine.thumbnail(id_) == b"other" and engine.counts()[0] == 1
    assert engine.known([Place(2, "b")]) == {} and engine.by_content([FULL.content or ""]) == []


def test_delete(engine: Engine) -> None:
    first, second = put(engine, replace(FULL, vector=vector(3)), row("b"))
    with engine.writing("a test") as writer:
        writer.delete([first, 777])
    assert engine.ids() == [second] and engine.thumbnail(first) is None
    assert engine.vectors([first, second])[0].tolist() == [second]
    assert engine.known([FULL.place]) == {}  # type: ignore[list-item]
    assert engine.sizes([FULL.bytes]) == set()  # type: ignore[list-item]


def test_many_vectors_block_by_block(engine: Engine) -> None:
    ids = put(engine, *(row(f"{n}", object=f"o{n % 7}", seed=n) for n in range(40)))
    parts = list(engine.every_vector(block=16))
    assert [len(part[0]) for part in parts] == [16, 16, 8]
    assert np.concatenate([part[0] for part in parts]).tolist() == ids
    whole = np.concatenate([part[2] for part in parts])
    assert whole.tobytes() == b"".join(vector(n).tobytes() for n in range(40))
    back, objects, some = engine.vectors([ids[9], ids[2], ids[9], 12345])
    assert back.tolist() == [ids[2], ids[9]]
    assert some.tobytes() == vector(2).tobytes() + vector(9).tobytes()
    names = engine.object_names(set(objects.tolist()))
    assert [names[o] for o in objects.tolist()] == ["o2", "o2"]


def test_sums(place: Storage) -> None:
    engine = place.open()
    totals = {key: np.array([1e16, 1 / 3, -(2.0**-40), 0, n]) for n, key in enumerate("abc")}
    with engine.writing("a test") as writer:
        writer.put([row("1", "x", camera="a"), row("2", "y", camera="c")])
        writer.set_sums(
            [
                Sum("y", "c", 1, totals["c"], 0.1),
                Sum("x", "b", 2, totals["b"], 1e300),
                Sum("x", "a", 3, totals["a"], 1.5),
            ]
        )
    engine = place.again(engine)
    found = engine.sums()
    assert [(s.object, s.camera, s.count) for s in found] == [
        ("x", "a", 3), ("x", "b", 2), ("y", "c", 1)
    ]  # fmt: skip
    assert [s.squares for s in found] == [1.5, 1e300, 0.1]
    for one, key in zip(found, "abc", strict=True):
        assert one.total.dtype == np.float64 and one.total.tobytes() == totals[key].tobytes()
    assert [s.camera for s in engine.sums(["x"])] == ["a", "b"] and engine.sums(["z"]) == []
    assert engine.sums([]) == []
    x = found[0].object_id
    assert [s.camera for s in engine.sums_by_id([x, 999])] == ["a", "b"]
    with engine.writing("a test") as writer:
        writer.set_sums([Sum("x", "a", 1, totals["c"], 0.0), Sum("x", "b", 0, totals["b"], 0.0)])
    assert [(s.camera, s.count) for s in engine.sums(["x"])] == [("a", 1)]
    assert engine.object_names([x]) == {x: "x"}


def test_objects_vanish_with_their_last_image(place: Storage) -> None:
    engine = place.open()
    zero = np.zeros(DIM)
    with engine.writing("a test") as writer:
        one, two = writer.put([row("1", "x"), row("2", "y")])
        writer.set_sums([Sum("x", "", 1, zero + 1, 1.0), Sum("y", "", 1, zero + 1, 1.0)])
    before = engine.rows([one])[0].object_id
    with engine.writing("a test") as writer:
        writer.put([row("1", "y", id=one)])
        writer.set_sums([Sum("x", "", 0, zero, 0.0), Sum("y", "", 2, zero + 2, 2.0)])
    assert engine.counts() == (2, 1) and engine.objects() == [("y", 2)]
    assert engine.object_names([before]) == {} and engine.sums(["x"]) == []
    assert engine.images_of("y") == [one, two] and engine.images_of("x") == []
    (kept,) = engine.rows([one])
    assert engine.first_images([kept.object_id, 10**6]) == {kept.object_id: one}
    engine = place.again(engine)
    put(engine, row("3", "x"))
    assert engine.rows(engine.images_of("x"))[0].object_id > before


def test_objects_by_name(engine: Engine) -> None:
    names = ["b", "a", "Abc", "ä", "100%_", "z'); DROP", "B"]
    put(engine, *(row(f"{n}", name, seed=n) for n, name in enumerate(names)), row("x", "b", seed=9))
    assert engine.objects() == [(n, 1 + (n == "b")) for n in sorted(names)]
    assert [n for n, _ in engine.objects("b")] == ["Abc", "B", "b"]
    assert [n for n, _ in engine.objects("%_")] == ["100%_"]
    assert [n for n, _ in engine.objects(offset=2, limit=3)] == sorted(names)[2:5]
    covers = engine.covers([*names, "nothing", "a"])
    assert covers == {name: min(engine.images_of(name)) for name in names}
    assert engine.covers([]) == {}


def test_places_contents_and_sizes(engine: Engine) -> None:
    box = (0.1, 0.2, 3.0, 4.0)
    rows = [
        row("a", seed=1, content="c1", bytes=10),
        row("a", seed=2, place=Place(1, "a", box), content="c1", bytes=10),
        row("a", seed=3, place=Place(2, "a"), content="c2", bytes=11),
    ]
    ids = put(engine, *rows)
    asked = [Place(2, "a"), Place(1, "a", box), Place(1, "b"), Place(1, "a", (1, 2, 3, 4))]
    found = engine.known(asked)
    assert {place: r.id for place, r in found.items()} == {asked[0]: ids[2], asked[1]: ids[1]}
    assert [r.id for r in engine.by_content(["c1", "none"])] == ids[:2]
    assert engine.by_content([]) == [] and engine.known([]) == {}
    assert engine.images_at(1, "a") == ids[:2] and engine.images_at(2, "b") == []
    assert engine.sizes(range(11, 3000)) == {11} and engine.sizes([]) == set()
    assert engine.sizes([10, 11, 12]) == {10, 11}


def test_two_images_in_one_place_are_refused(engine: Engine) -> None:
    put(engine, row("a"))
    before = engine.version()
    with pytest.raises(UserError, match="two images in one place"):
        put(engine, row("b"), row("a", seed=2))
    assert engine.counts() == (1, 1) and engine.version() == before
    assert put(engine, row("b"))  # and goes on


def test_left_out(place: Storage) -> None:
    engine = place.open()
    box = (1.0, 2.0, 3.0, 4.0)
    entries = [
        LeftOut(Place(1, "a"), 5, 1_700_000_000_123_456_789, "ff", "copy", 3),
        LeftOut(Place(1, "a", box), None, None, None, "unusable: no picture"),
    ]
    with engine.writing("a test") as writer:
        writer.leave_out(entries)
    engine = place.again(engine)
    asked = [Place(1, "a"), Place(1, "a", box), Place(2, "a")]
    assert engine.left_out(asked) == {one.place: one for one in entries}
    assert list(engine.every_left_out()) == entries
    with engine.writing("a test") as writer:
        writer.leave_out([replace(entries[0], reason="removed")])
        writer.take_back([Place(1, "a", box), Place(9, "never")])
    assert [one.reason for one in engine.left_out(asked).values()] == ["removed"]


def test_roots(place: Storage) -> None:
    engine = place.open()
    with engine.writing("a test") as writer:
        first, second = writer.add_root("photos", "/a b"), writer.add_root("é", "/c")
        writer.move_root(second.id, "/moved")
    assert first.name == "photos" and first.path == "/a b" and first.id != second.id
    engine = place.again(engine)
    assert engine.roots() == [first, replace(second, path="/moved")]
    with pytest.raises(UserError, match="two roots of one name"), engine.writing("x") as writer:
        writer.add_root("photos", "/z")


def test_meta(place: Storage) -> None:
    engine = place.open()
    value = {"list": [1, 2.5, None, "é"], "deep": {"a": True}}
    with engine.writing("a test") as writer:
        writer.set_meta(mine=value, other=1, tiny=5e-324, grid=2.0**-30)
    engine = place.again(engine)
    meta = engine.meta()
    assert meta["mine"] == value and meta["tiny"] == 5e-324 and meta["grid"] == 2.0**-30
    with engine.writing("a test") as writer:
        writer.set_meta(other=None, mine=[])
    assert engine.meta()["mine"] == [] and "other" not in engine.meta()


def test_table(engine: Engine) -> None:
    put(
        engine,
        row("a", camera="c1", columns={"price": 2, "id": "mine"}, width=7, height=8, bytes=9),
        row("b", None, seed=2, split="test", columns={"price": None, "x.y": 1}),
    )
    names = ["object", "object_id", "path", "camera", "split", "bytes", "width", "height"]
    found = engine.table([*names, "price", "x.y", "none"])
    assert set(found) == {"id", *names, "price", "x.y"}
    assert found["id"] == engine.ids() and found["object"] == ["cup", None]
    assert found["object_id"][0] > 0 and found["object_id"][1] == 0
    assert found["path"] == ["a", "b"] and found["camera"] == ["c1", None]
    assert (found["split"], found["width"]) == ([None, "test"], [7, None])
    assert found["price"] == [2, None] and found["x.y"] == [None, 1]


def test_versions_and_changes(place: Storage) -> None:
    engine = place.open()
    seen = [engine.version()]
    a, b = put(engine, row("a", "x", seed=1), row("b", "y", seed=2))
    seen.append(engine.version())
    with engine.writing("a test") as writer:
        writer.set_sums([Sum("x", "", 1, np.ones(DIM), 1.0), Sum("x", "c", 1, np.ones(DIM), 1.0)])
    seen.append(engine.version())
    put(engine, Row(id=b, object="z"))
    seen.append(engine.version())
    x = engine.sums()[0].object_id
    with engine.writing("a test") as writer:
        writer.delete([a])
        writer.set_sums([Sum("x", "c", 0, np.zeros(DIM), 0.0)])
    seen.append(engine.version())
    assert seen == [seen[0] + n for n in range(5)]
    engine = place.again(engine)
    told = [engine.changes(version) for version in seen]
    assert all(one is not None and one.version == seen[4] for one in told)
    assert [one.images for one in told if one] == [[a, b], [a, b], [a, b], [a], []]
    assert [one.objects for one in told if one] == [[x], [x], [x], [x], []]


def test_what_fails_leaves_nothing(place: Storage) -> None:
    engine = place.open()
    (id_,) = put(engine, row("a"))
    with engine.writing("a test") as writer:
        writer.set_sums([Sum("cup", "", 1, np.ones(DIM), 1.0)])
        root = writer.add_root("photos", "/a")
    before = (engine.version(), engine.meta(), kept(engine), engine.roots(), engine.counts())
    with pytest.raises(ZeroDivisionError), engine.writing("a test") as writer:
        writer.put([row("b", "new"), row("a", "other", id=id_, seed=9)])
        writer.delete([id_])
        writer.set_sums([Sum("cup", "", 0, np.zeros(DIM), 0.0), Sum("new", "", 1, np.ones(DIM), 1)])
        writer.leave_out([LeftOut(Place(1, "q"), 1, 1, None, "copy")])
        writer.add_root("more", "/b")
        writer.move_root(root.id, "/c")
        writer.set_meta(mine=1)
        _ = 1 / 0
    for _ in range(2):
        assert before == (
            *(engine.version(), engine.meta(), kept(engine)),
            *(engine.roots(), engine.counts()),
        )
        assert engine.vectors([id_])[2][0].tobytes() == vector(1).tobytes()
        assert engine.left_out([Place(1, "q")]) == {} and engine.sums()[0].count == 1
        assert engine.objects() == [("cup", 1)]
        engine = place.again(engine)


def test_put_and_deleted_at_once(engine: Engine) -> None:
    with engine.writing("a test") as writer:
        ids = writer.put([row("a"), row("b", seed=2)])
        writer.delete(ids[:1])
        writer.put([row("c", seed=3, id=ids[1])])
    assert engine.ids() == ids[1:]
    assert engine.vectors(ids)[2].tobytes() == vector(3).tobytes()
    assert list(engine.known([Place(1, "a"), Place(1, "b"), Place(1, "c")])) == [Place(1, "c")]


def test_a_reader_sees_each_acknowledged_change(place: Storage) -> None:
    if not place.lasting:
        pytest.skip("in memory there is one connection")
    writer, reader = place.open(), place.open()
    for n in range(3):
        (id_,) = put(writer, row(f"{n}", seed=n))
        assert reader.version() == writer.version() and reader.ids()[-1] == id_
        assert reader.vectors([id_])[2][0].tobytes() == vector(n).tobytes()


def test_a_second_writer_waits_or_is_told(place: Storage) -> None:
    first = place.open(wait=0.3)
    second = place.open(wait=0.3) if place.lasting else first
    inside, done = threading.Event(), threading.Event()

    def long() -> None:
        with first.writing("a long test") as writer:
            writer.put([row("a")])
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=long)
    thread.start()
    assert inside.wait(10)
    try:
        with pytest.raises(UserError, match=r"writing; waited 0"):
            put(second, row("b", seed=2))
    finally:
        done.set()
        thread.join()
    assert put(second, row("b", seed=2)) and second.counts()[0] == 2


def test_two_writers_lose_nothing(place: Storage) -> None:
    engines = [place.open(wait=30), place.open(wait=30) if place.lasting else place.opened[0]]
    faults: list[BaseException] = []

    def write(at: int) -> None:
        try:
            for n in range(8):
                put(engines[at], row(f"{at}-{n}", f"o{n}", seed=n))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=[at]) for at in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert engines[0].counts() == (16, 8) and len(set(engines[0].ids())) == 16
    assert {count for _, count in engines[1].objects()} == {2}


def test_writing_inside_writing_is_an_error(place: Storage) -> None:
    engine = place.open(wait=0.1)
    with engine.writing("outer") as writer:
        writer.put([row("a")])
        with pytest.raises((RuntimeError, UserError)), engine.writing("inner") as inner:
            inner.put([row("b", seed=2)])
    assert engine.counts() == (1, 1)
