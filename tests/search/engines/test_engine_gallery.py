"""The same gallery, whichever engine keeps it: what is added, moved, removed, found, copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.features.store import Features
from resight.search.engines.contract import Engine
from resight.search.gallery import Gallery
from resight.search.sums import adjusted
from resight.search.transfer import checksum, copy_rows
from storages import KINDS, Storage, storage

OTHERS = tuple(kind for kind in KINDS if kind != "memory")


@pytest.fixture(params=OTHERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    with storage(request.param, tmp_path) as made:
        yield made


def features(
    vectors: Any, objects: list[str | None], cameras: list[str | None] | None = None, first: int = 0
) -> Features:
    """Features as if of the images /g/<first>.png, ..."""
    data = {
        "path": [f"/g/{first + n}.png" for n in range(len(vectors))],
        "object": objects,
        "camera": cameras or [None] * len(objects),
    }
    table = normalise(pl.DataFrame(data, schema=dict.fromkeys(data, pl.String)))
    vectors = np.asarray(vectors, np.float32)
    return Features(ImageSet(table, Path()), (vectors,), np.ones(len(vectors), bool))


def some(count: int, dim: int = 6, seed: int = 0) -> tuple[np.ndarray, list[str | None], list]:
    rng = np.random.default_rng(seed)
    objects = [f"o{n % 5}" if n % 6 else None for n in range(count)]
    cameras = [f"c{n % 3}" if n % 4 else None for n in range(count)]
    return rng.normal(0, 2, (count, dim)).astype(np.float32), objects, cameras


def check_sums(engine: Engine) -> None:
    """The sums are those of the rows, to the last bit, and objects those that have images."""
    ids = engine.ids()
    found, _, vectors = engine.vectors(ids)
    assert found.tolist() == ids
    rows = [replace(r, vector=v) for r, v in zip(engine.rows(ids), vectors, strict=True)]
    meta = engine.meta()
    wanted = adjusted([], [], rows, meta["grid"], meta["dim"]) if rows else []
    told = {(s.object, s.camera): (s.count, s.total.tobytes(), s.squares) for s in engine.sums()}
    right = {(s.object, s.camera): (s.count, (s.total + 0.0).tobytes(), s.squares) for s in wanted}
    assert {k: (n, (np.frombuffer(t) + 0.0).tobytes(), q) for k, (n, t, q) in told.items()} == right
    names = {row.object for row in rows} - {None}
    assert engine.counts() == (len(rows), len(names))
    assert {name for name, _ in engine.objects(limit=1000)} == names


def test_adding_twice_and_bad_vectors(place: Storage) -> None:
    vectors, objects, cameras = some(12)
    vectors[3], vectors[7] = np.nan, 0
    gallery = Gallery(engine=place.open())
    gallery.add(features(vectors, objects, cameras))
    assert [path for path, _ in gallery.added.bad] == ["/g/3.png", "/g/7.png"]
    assert len(gallery.added.added) == 10
    before = (checksum(gallery.engine), gallery.engine.counts())
    again = gallery.add(features(vectors, objects, cameras)).added
    assert again.unchanged == 10 and not again.added
    assert (checksum(gallery.engine), gallery.engine.counts()) == before
    with pytest.raises(UserError, match="4 dimensions"):
        gallery.add(features(np.ones((1, 4)), ["o1"], first=50))
    check_sums(gallery.engine)
    gallery = Gallery(engine=place.again(gallery.engine))
    assert len(gallery.engine.ids()) == 10 and gallery.engine.meta()["dim"] == 6


def test_moving_and_removing(place: Storage) -> None:
    gallery = Gallery(engine=place.open())
    gallery.add(features(*some(14)))
    ids = gallery.engine.ids()
    gallery.move(ids[:4], "new")
    gallery.move(ids[5:6], None)
    check_sums(gallery.engine)
    gallery.remove(ids[6:9])
    check_sums(gallery.engine)
    gallery.rename("o1", "o2")
    check_sums(gallery.engine)
    gallery.add(features(*some(14)))
    check_sums(gallery.engine)


def test_search_is_the_same_everywhere(place: Storage, tmp_path: Path) -> None:
    own, other = Gallery(), Gallery(engine=place.open())
    vectors, objects, cameras = some(60)
    for gallery in (own, other):
        gallery.add(features(vectors, objects, cameras))
        gallery.search_vectors(vectors[:1])  # a view that is brought up to date later
        gallery.move(gallery.engine.ids()[3:9], "moved")
        gallery.remove(gallery.engine.ids()[20:25])
        gallery.add(features(vectors[:4] + 1, ["late", None, "o1", "late"], first=100))
    queries = np.random.default_rng(5).normal(0, 1, (7, 6)).astype(np.float32)
    for level in ("image", "object", "both"):
        for how in ({}, {"exclude_cameras": ("c1",)}):
            found = [g.search_vectors(queries, 8, level=level, **how) for g in (own, other)]
            for one, two in zip(*found, strict=True):
                assert [(h.image, h.object, h.path) for h in one] == [
                    (h.image, h.object, h.path) for h in two
                ]
                near = [[h.similarity for h in hits] for hits in (one, two)]
                assert np.allclose(*near, atol=1e-5, rtol=0)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from("amrn"), st.integers(0, 9), st.integers(0, 3)),
        min_size=3,
        max_size=8,
    )
)
@pytest.mark.parametrize("kind", OTHERS)
def test_sums_after_any_changes(
    tmp_path: Path, kind: str, steps: list[tuple[str, int, int]]
) -> None:
    with storage(kind, tmp_path) as place:
        gallery = Gallery(engine=place.open())
        vectors, objects, cameras = some(10, seed=3)
        gallery.add(features(vectors, objects, cameras))
        for number, (what, which, name) in enumerate(steps):
            ids = gallery.engine.ids()
            chosen = [ids[which % len(ids)]] if ids else []
            if what == "a":
                more = vectors[which : which + 1] * (1 + number)
                gallery.add(features(more, [f"o{name}"], ["c1"], 100 + number))
            elif what == "r" and chosen:
                gallery.remove(chosen)
            elif what == "m" and chosen:
                gallery.move(chosen, f"o{name}" if name else None)
            elif what == "n" and f"o{name}" in dict(gallery.engine.objects()):
                gallery.rename(f"o{name}", "renamed")
        check_sums(gallery.engine)


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_copy_between_any_two(source: str, target: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        one = stack.enter_context(storage(source, tmp_path)).open()
        there = stack.enter_context(storage(target, tmp_path))
        two = there.open()
        gallery = Gallery(engine=one)
        gallery.add(features(*some(20)))
        gallery.remove(one.ids()[4:6])
        gallery.move(one.ids()[:2], "moved")
        with pytest.raises(KeyboardInterrupt):
            copy_rows(one, two, progress=_stops_at(8), block=4)
        two = there.again(two)
        assert 0 < two.counts()[0] < 18
        assert copy_rows(one, two, block=4) == 18
        assert checksum(one) == checksum(two) and one.ids() == two.ids()
        check_sums(two)
        assert [(r.place, r.object, r.given, r.camera) for r in one.rows(one.ids())] == [
            (r.place, r.object, r.given, r.camera) for r in two.rows(two.ids())
        ]
        assert [(s.object, s.camera, s.count, s.squares) for s in _by_name(one)] == [
            (s.object, s.camera, s.count, s.squares) for s in _by_name(two)
        ]
        assert [o.place.path for o in two.every_left_out()] == ["4.png", "5.png"]
        assert list(one.every_left_out()) == list(two.every_left_out())
        third = Gallery().engine
        with pytest.raises(UserError, match="holds images of its own"):
            copy_rows(third, one)


def _by_name(engine: Engine) -> list[Any]:
    return sorted(engine.sums(), key=lambda s: (s.object, s.camera))


def _stops_at(limit: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= limit:
            raise KeyboardInterrupt

    return progress


def test_move_root_and_left_out(place: Storage) -> None:
    gallery = Gallery(engine=place.open())
    gallery.add(features(*some(6)))
    engine = gallery.engine
    (root,) = engine.roots()
    with engine.writing("a test") as writer:
        writer.move_root(root.id, "/elsewhere")
    gallery = Gallery(engine=place.again(engine))
    (hits,) = gallery.search_vectors(some(6)[0][:1], 1)
    assert hits[0].path == "/elsewhere/0.png"
