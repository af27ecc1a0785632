"""Sums of objects after any history of changes: those of what is there, to the last bit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from gallery_sets import crowd, features_of
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.search.check import NOTE, check, rebuilt_sums
from resight.search.editing import change
from resight.search.gallery import Gallery
from resight.search.sums import grid_of, spread, squares_of, totals_of

NAMES = (None, "a", "b", "c", "d")
CAMERAS = (None, "c1", "c2")
DIM = 4


@dataclass
class Twin:
    """A live gallery, and what should be in it: number -> (vector, object, camera)."""

    live: Gallery = field(default_factory=lambda: Gallery(level="object"))
    right: dict[int, tuple[Any, str | None, str | None]] = field(default_factory=dict)
    next: int = 0

    def add(self, vectors: Any, names: list, cameras: list) -> None:
        numbers = list(range(self.next, self.next + len(vectors)))
        self.live.add(features_of(vectors, names, self.next, cameras))
        self.right |= dict(zip(numbers, zip(vectors, names, cameras, strict=True), strict=True))
        self.next += len(vectors)

    def remove(self, number: int) -> None:
        del self.right[number]
        self.live.remove([f"/g/{number}.png"])

    def move(self, number: int, to: str | None) -> None:
        vector, _, camera = self.right[number]
        self.right[number] = vector, to, camera
        self.live.move([f"/g/{number}.png"], to)

    def put(self, number: int, **new: Any) -> None:
        """Another vector or camera, as a changed file brings it."""
        vector, name, camera = self.right[number]
        self.right[number] = new.get("vector", vector), name, new.get("camera", camera)
        (row,) = self.live.engine.rows(self.live.find([f"/g/{number}.png"]))
        with self.live.engine.writing("a test") as writer:
            change(self.live.engine, writer, put=[replace(row, **new)])

    def fresh(self, order: list[int] | None = None) -> Gallery:
        """A new gallery of what should be there, with the same grid."""
        meta = self.live.engine.meta()
        new = Gallery(level="object")
        if "grid" in meta:
            with new.engine.writing("a test") as writer:
                writer.set_meta(grid=meta["grid"], dim=meta["dim"])
        numbers = sorted(self.right) if order is None else order
        if numbers:
            vectors, names, cameras = zip(*(self.right[n] for n in numbers), strict=True)
            new.add(features_of(vectors, names, 0, cameras, numbers=numbers))
        return new


def sums_in(gallery: Gallery) -> dict[tuple[str, str], tuple[int, bytes, float]]:
    found = gallery.engine.sums()
    return {(s.object, s.camera): (s.count, s.total.tobytes(), s.squares) for s in found}


def hits_of(gallery: Gallery, queries: Any) -> list[Any]:
    return [
        [(hit.object, hit.similarity, hit.path, hit.images) for hit in hits]
        for hits in gallery.search_vectors(queries, 50)
    ]


@st.composite
def histories(draw: Any) -> tuple[Twin, list[str]]:
    """A gallery after a random sequence of changes, and what these were."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = ["add", "remove", "move", "camera", "vector", "rename", "object"]
    twin, done = Twin(), []
    for kind in ["add", *draw(st.lists(st.sampled_from(kinds), max_size=25))]:
        count = int(rng.integers(1, 5))
        vectors = (rng.normal(size=(count, DIM)) * rng.uniform(0.01, 100)).astype(np.float32)
        name = NAMES[rng.integers(len(NAMES))]
        there = list(twin.right)
        number = there[rng.integers(len(there))] if there else None
        named = sorted({o for _, o, _ in twin.right.values() if o is not None})
        if kind == "add":
            names = [NAMES[n] for n in rng.integers(0, len(NAMES), count)]
            cameras = [CAMERAS[n] for n in rng.integers(0, len(CAMERAS), count)]
            twin.add(vectors, names, cameras)
        elif number is None:
            continue
        elif kind == "remove":
            twin.remove(number)
        elif kind == "move":
            twin.move(number, name)
        elif kind == "camera":
            twin.put(number, camera=CAMERAS[rng.integers(len(CAMERAS))])
        elif kind == "vector":
            twin.put(number, vector=vectors[0])
        elif named and kind == "rename":
            twin.live.rename(named[0], named[-1] if len(named) > 1 else "e")
            to = named[-1] if len(named) > 1 else "e"
            for n, (v, o, c) in twin.right.items():
                twin.right[n] = v, (to if o == named[0] else o), c
        elif named and kind == "object":
            twin.live.remove_object(named[0])
            twin.right = {n: one for n, one in twin.right.items() if one[1] != named[0]}
        done.append(kind)
        if rng.random() < 0.3:  # a view that is kept up to date along the way
            len(twin.live)
    return twin, done


@settings(max_examples=120, deadline=None)
@given(case=histories())
def test_after_any_changes_as_made_anew(case: tuple[Twin, list[str]]) -> None:
    twin, _ = case
    fresh, live = twin.fresh(), twin.live
    assert sums_in(live) == sums_in(fresh)  # in float64, bit for bit
    rebuilt = {
        k: (s.count, s.total.tobytes(), s.squares) for k, s in rebuilt_sums(live.engine).items()
    }
    assert sums_in(live) == rebuilt
    assert live.engine.counts() == fresh.engine.counts()  # nothing is left behind of objects
    queries = np.random.default_rng(0).normal(size=(4, DIM)).astype(np.float32)
    assert hits_of(live, queries) == hits_of(fresh, queries)
    assert not [str(one) for one in check(live) if one.kind != NOTE]


@settings(max_examples=60, deadline=None)
@given(case=histories(), seed=st.integers(0, 2**16))
def test_sums_and_spread_are_those_of_the_vectors(case: tuple[Twin, list[str]], seed: int) -> None:
    twin, _ = case
    order = np.random.default_rng(seed).permutation(sorted(twin.right)).tolist()
    assert sums_in(twin.fresh(order)) == sums_in(twin.live)  # in any order
    by_name: dict[str, list[Any]] = {}
    for vector, name, _ in twin.right.values():
        if name is not None:
            by_name.setdefault(name, []).append(np.asarray(vector, np.float64))
    found = totals_of(twin.live.engine.sums())
    assert found.keys() == by_name.keys()
    for name, vectors in by_name.items():
        count, total, squares = found[name]
        largest = max(1e-9, *(float(np.abs(v).max()) for v, _, _ in twin.right.values()))
        np.testing.assert_allclose(total, np.sum(vectors, axis=0), atol=1e-6 * largest)
        apart = np.sqrt(np.square(vectors - np.mean(vectors, axis=0)).sum(axis=1).mean())
        assert count == len(vectors)
        assert spread(count, total, squares) == pytest.approx(apart, abs=0.02 * largest)


def test_a_thousand_comings_and_goings_leave_nothing() -> None:
    """In plain float64 sums each addition leaves a rounding behind."""
    rng = np.random.default_rng(0)
    twin = Twin()
    twin.add(rng.normal(size=(3, DIM)).astype(np.float32), ["a"] * 3, [None] * 3)
    before = sums_in(twin.live)
    for turn in range(50):
        strange = (rng.normal(size=(20, DIM)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
        first = twin.next
        twin.add(strange, ["a" if turn % 2 else None] * 20, [None] * 20)
        for number in range(first, first + 20):
            twin.move(number, "a")
        for number in range(first, first + 20):
            twin.remove(number)
    assert sums_in(twin.live) == before


def test_an_image_among_the_wrong_ones_is_named() -> None:
    vectors, names = crowd(60, objects=4, spread=0.1)
    wrong = 17
    names[wrong] = "a0" if names[wrong] != "a0" else "a1"
    gallery = Gallery().add(features_of(vectors, names))
    first, *_ = [one for one in check(gallery) if one.what == "outlier"]  # the farthest
    assert first.where == f"/g/{wrong}.png"
    assert f"far from the other images of {names[wrong]!r}" in first.text
    assert "resight gallery move" in first.mend


@pytest.mark.parametrize("dim", [1, 7, 512])
def test_squares_do_not_depend_on_what_is_summed_beside(dim: int) -> None:
    rows = np.random.default_rng(0).normal(size=(40, dim)).astype(np.float32)
    grid = grid_of(rows)
    together = squares_of(rows, grid)
    assert [squares_of(row[None], grid)[0] for row in rows] == together.tolist()
    np.testing.assert_allclose(together, np.square(rows.astype(float)).sum(axis=1), rtol=1e-3)
