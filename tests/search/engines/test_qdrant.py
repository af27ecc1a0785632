"""Qdrant: changes that are cut off anywhere, the lease, generations behind an alias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="needs qdrant-client", exc_type=ImportError)

from resight.errors import UserError
from resight.search.editing import change as change_rows
from resight.search.engines import qdrant_link
from resight.search.engines.contract import LeftOut, Place, Row, Sum
from resight.search.engines.qdrant import QdrantEngine, split_name
from resight.search.views import Views
from storages import quick_qdrant

quick_qdrant()


class Killed(BaseException):
    pass


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, 4).astype(np.float32)


def row(n: int, **more: Any) -> Row:
    return Row(place=Place(1, f"{n}.png"), object=f"o{n % 2}", vector=vector(n), **more)


def state(engine: QdrantEngine) -> Any:
    ids, _, vectors = engine.vectors(engine.ids())
    return (
        *(engine.version(), engine.rows(ids.tolist(), thumbnails=True), vectors.tobytes()),
        *(engine.objects(), engine.counts(), engine.meta(), engine.roots()),
        [(s.object, s.camera, s.count, s.total.tolist()) for s in engine.sums()],
        list(engine.every_left_out()),
    )


def begin(engine: QdrantEngine) -> None:
    with engine.writing("a test") as writer:
        writer.put([row(1, thumbnail=b"1"), row(2), row(3)])
        writer.set_sums([Sum("o1", "", 2, np.ones(4), 1.0), Sum("o0", "", 1, np.ones(4), 1.0)])


def change(engine: QdrantEngine) -> None:
    with engine.writing("a test") as writer:
        writer.delete([2])
        writer.put([row(4, thumbnail=b"4"), Row(id=1, place=Place(2, "x"), object="new")])
        writer.set_sums([Sum("o0", "", 0, np.ones(4), 0.0), Sum("new", "c", 1, np.ones(4), 2.0)])
        writer.leave_out([LeftOut(Place(1, "2.png"), 1, 1, None, "removed")])
        writer.add_root("photos", "/p")
        writer.set_meta(mine=[1])


def killed_at(engine: QdrantEngine, call: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Make the change, with the process gone at this call of the client; whether it was."""
    calls, real = 0, qdrant_link.Link.using

    def using(link: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > call:
            raise Killed
        return real(link)

    with monkeypatch.context() as patch:
        patch.setattr(qdrant_link.Link, "using", using)
        try:
            change(engine)
        except Killed:
            return True
    return False


def test_a_change_that_is_cut_off_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, call = [], 0
    while True:
        address = f"qdrant:{tmp_path / str(call)}"
        engine = QdrantEngine(address)
        begin(engine)
        before = state(engine)
        dead = killed_at(engine, call, monkeypatch)
        engine.close()
        engine = QdrantEngine(address)
        found = state(engine)
        results.append(found)
        if found != before:
            assert found[0] == before[0] + 1
            assert [r.id for r in found[1]] == [1, 3, 4]
        with engine.writing("afterwards") as writer:  # nothing stands in the way
            writer.put([row(9)])
        assert engine.version() == found[0] + 1
        engine.close()
        if not dead:
            break
        call += 1
    assert call > 15
    first = next(n for n, found in enumerate(results) if found != results[0])
    assert 0 < first < call  # some are undone, some are finished
    assert all(found == results[0] for found in results[:first])
    assert all(found == results[-1] for found in results[first:])


def test_a_lease_that_is_past_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (QdrantEngine(f"qdrant:{tmp_path / 'q'}", wait=0.1) for _ in range(2))
    begin(one)
    monkeypatch.setattr(qdrant_link, "LEASE", -1.0)
    told = pytest.raises(UserError, match="nothing of this change was kept")
    with told, one.writing("a slow one") as slow:
        slow.put([row(5)])
        monkeypatch.setattr(qdrant_link, "LEASE", 60.0)
        with two.writing("a quick one") as quick:
            quick.put([row(6)])
    assert len(two.ids()) == 4 and two.known([Place(1, "6.png")])
    for engine in (one, two):
        engine.close()


def test_generations_behind_an_alias(tmp_path: Path) -> None:
    engine = QdrantEngine(f"qdrant:{tmp_path / 'q'}")
    begin(engine)
    ids = engine.ids()
    with engine.writing("embedding anew") as writer:
        writer.put_vectors({i: np.ones(7) * i for i in ids}, generation=2)  # type: ignore[attr-defined]
    assert engine.vectors(ids)[2].shape == (3, 4)
    with engine.writing("a label meanwhile") as writer:
        writer.put([Row(id=ids[0], object="late")])
    with engine.writing("switching") as writer:
        writer.set_meta(generation=2)
    assert engine.generation() == 2 and engine.vectors(ids)[2].shape == (3, 7)
    assert engine.rows(ids)[0].object == "late" and engine.sums() == []
    engine.close()


def test_addresses() -> None:
    assert split_name("qdrant:http://h:6333/cups") == ("http://h:6333", "cups")
    assert split_name("qdrant:https://h/a/b/cups") == ("https://h/a/b", "cups")
    assert split_name("qdrant:http://h:6333") == ("http://h:6333", "gallery")
    assert split_name("qdrant:/a/b") == ("/a/b", "gallery")
    with pytest.raises(UserError, match="can't name a gallery"):
        QdrantEngine("qdrant:http://h:6333/a b")


def test_only_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no gallery is there"):
        QdrantEngine(f"qdrant:{tmp_path / 'none'}", create=False)
    assert not (tmp_path / "none").exists()


def test_the_first_image_needs_a_vector(tmp_path: Path) -> None:
    engine = QdrantEngine(f"qdrant:{tmp_path / 'q'}")
    with pytest.raises(UserError, match="only after the first"), engine.writing("x") as writer:
        writer.put([Row(object="a")])
    with pytest.raises(UserError, match="of 3 dimensions"), engine.writing("x") as writer:
        writer.put([row(1), Row(vector=np.ones(3, np.float32))])
    assert engine.counts() == (0, 0)
    engine.close()


@pytest.mark.parametrize("level", ["image", "object"])
def test_searching_inside(tmp_path: Path, level: str) -> None:
    engine = QdrantEngine(f"qdrant:{tmp_path / 'q'}")
    rng = np.random.default_rng(0)
    asked = rng.normal(0, 1, (9, 8)).astype(np.float32)
    assert [len(near.keys) for near in engine.nearest(asked, 3, level=level)] == [0] * 9
    rows = [
        Row(
            object=f"o{n % 20}" if n % 7 else None,
            vector=rng.normal(0, 5, 8).astype(np.float32) * np.float32(n + 1),
        )
        for n in range(120)
    ]
    with engine.writing("a test") as writer:
        change_rows(engine, writer, put=rows)
    with engine.writing("a test") as writer:  # o3 vanishes, others change
        change_rows(engine, writer, delete=[*engine.images_of("o3"), *engine.images_of("o4")[:2]])
    view = Views(engine, None, print).get(level)
    for exact in (False, True):  # local mode always looks at every vector
        found = engine.nearest(asked, 10, level=level, exact=exact)
        for one, two in zip(found, view.nearest(asked, 10), strict=True):
            assert one.keys.tolist() == two.keys.tolist()
            assert one.groups.tolist() == two.groups.tolist()
            assert np.abs(one.similarities - two.similarities).max() < 1e-6
    engine.close()
