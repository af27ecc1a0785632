"""What is nearest, against a full sort: however it is asked, built, changed, and kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from gallery_sets import crowd, features_of
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.search import views
from resight.search.gallery import Gallery
from resight.search.index import build, new_flat, set_effort, unit
from resight.search.view import Near, View


def view_of(keys: Any, groups: Any, vectors: Any, kind: str = "flat") -> View:
    order = np.argsort(keys)
    flat = new_flat(vectors.shape[1], unit(vectors[order]))
    index = build(flat, np.array(keys)[order], np.array(groups)[order], kind)  # type: ignore[arg-type]
    return View(index, 1)


def by_sorting(
    query: Any, keys: Any, groups: Any, vectors: Any, k: int, distinct: bool, barred: Any = ()
) -> list[tuple[int, int]]:
    """(key, group) of the k best: all of them sorted, slowly."""
    q = unit(query[None])[0].astype(np.float64)
    similar = [float((row.astype(np.float64) * q).sum()) for row in unit(vectors)]
    order = sorted(range(len(keys)), key=lambda at: (-similar[at], keys[at]))
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    for at in order:
        if keys[at] in barred or (distinct and groups[at] in seen):
            continue
        seen |= {groups[at]} - {0}
        found.append((int(keys[at]), int(groups[at])))
    return found[:k]


def told(near: Near) -> list[tuple[int, int]]:
    return list(zip(near.keys.tolist(), near.groups.tolist(), strict=True))


@st.composite
def scenes(draw: Any) -> Any:
    """Keys, groups, vectors with many equal ones among them, and queries."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, dim = draw(st.integers(1, 120)), draw(st.sampled_from([2, 7, 16]))
    kinds = rng.normal(size=(draw(st.integers(1, 60)), dim))
    vectors = (kinds[rng.integers(0, len(kinds), count)]).astype(np.float32)
    keys = rng.choice(np.arange(-count, 3 * count + 1), count, replace=False)
    groups = rng.integers(0, draw(st.integers(1, 30)), count)
    queries = np.concatenate([rng.normal(size=(3, dim)), kinds[:2]]).astype(np.float32)
    return rng, keys, groups, vectors, queries


@settings(max_examples=150, deadline=None)
@given(case=scenes(), k=st.integers(1, 130), distinct=st.booleans(), late=st.integers(0, 100))
def test_nearest_is_a_full_sort(case: Any, k: int, distinct: bool, late: int) -> None:
    """Ties by key; whatever was in the index, came later, or came and went in between."""
    rng, keys, groups, vectors, queries = case
    early = np.arange(len(keys)) >= late
    view = view_of(keys[early], groups[early], vectors[early])
    again = rng.random(len(keys)) < 0.2  # these come with another vector first, or are struck
    view.append(keys[~early], groups[~early], vectors[~early][:, ::-1])
    touched = keys[again | ~early]
    view.strike(touched.tolist())
    view.append(touched, groups[again | ~early], vectors[again | ~early])
    barred = [frozenset(rng.choice(keys, min(3, len(keys))).tolist()) for _ in queries]
    share = rng.choice([0.03, 0.5, 0.95])
    allowed = np.sort(keys[rng.random(len(keys)) < share])
    for keep, some in (
        (None, np.ones(len(keys), bool)),
        (view.keep(allowed), np.isin(keys, allowed)),
    ):
        here = keys[some], groups[some], vectors[some]
        for without in (None, barred):
            found = view.nearest(queries, k, distinct=distinct, keep=keep, without=without)
            for row, near in enumerate(found):
                out = without[row] if without is not None else ()
                assert told(near) == by_sorting(queries[row], *here, k, distinct, out)
    assert len(view) == len(keys)


@pytest.mark.parametrize("dim", [3, 100, 512])
def test_the_same_in_any_batch_by_any_threads_in_any_order(dim: int) -> None:
    vectors, names = crowd(3000, dim, objects=300)
    vectors[1500:2000] = vectors[1000:1500]  # and equal ones
    groups = np.array([int(name[1:]) + 1 for name in names])
    rng = np.random.default_rng(1)
    queries = np.concatenate([rng.normal(size=(70, dim)), vectors[:30]]).astype(np.float32)
    keys = np.arange(1, 3001)
    view = view_of(keys, groups, vectors)
    threads = faiss.omp_get_max_threads()

    def answers(view: View, batch: int) -> list[Any]:
        found: list[Near] = []
        for start in range(0, len(queries), batch):
            found += view.nearest(queries[start : start + batch], 10, distinct=True)
        return [(one.keys.tolist(), one.similarities.tolist()) for one in found]

    wanted = answers(view, len(queries))
    try:
        for batch, workers in ((1, 1), (7, 2), (100, 1), (64, 3)):
            faiss.omp_set_num_threads(workers)
            assert answers(view, batch) == wanted
    finally:
        faiss.omp_set_num_threads(threads)
    order = rng.permutation(3000)
    later = view_of(keys[order[:5]], groups[order[:5]], vectors[order[:5]])
    for part in np.array_split(order[5:], 7):
        later.append(keys[part], groups[part], vectors[part])
    assert answers(later, 33) == wanted


@pytest.mark.parametrize("dim", [1, 7, 100, 384, 512])
def test_a_unit_vector_does_not_depend_on_its_company(dim: int) -> None:
    rows = np.random.default_rng(0).normal(size=(50, dim + 1)).astype(np.float32)[:, 1:]
    together = unit(rows)
    for at, row in enumerate(rows):
        assert np.array_equal(unit(row[None])[0], together[at])
        assert np.array_equal(unit(np.array(row[None], np.float64))[0], together[at])


def test_a_filter_that_keeps_three_rows_or_one_in_a_hundred_is_exact() -> None:
    vectors, names = crowd(4000, 16, objects=50)
    price = np.random.default_rng(2).permutation(4000)
    gallery = Gallery().add(features_of(vectors, names, price=price.tolist()))
    queries = np.random.default_rng(3).normal(size=(20, 16)).astype(np.float32)
    groups = np.array([int(name[1:]) + 1 for name in names])
    for below in (3, 40, 2000, 3900):
        some = np.flatnonzero(price < below)
        found = gallery.search_vectors(queries, 10, where=f"price < {below}")
        for query, hits in zip(queries, found, strict=True):
            wanted = by_sorting(query, some, groups[some], vectors[some], 10, True)
            assert [hit.path for hit in hits] == [f"/g/{at}.png" for at, _ in wanted]
            assert all(hit.columns["price"] < below for hit in hits)
    assert [len(hits) for hits in gallery.search_vectors(queries, where="price < 0")] == [0] * 20


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Indexes are kept, measured and made anew after a few changes."""
    monkeypatch.setattr(views, "LEAST", 50)
    yield


def grown(folder: Path, kind: str, count: int = 3000) -> tuple[Gallery, Any, list[str]]:
    vectors, names = crowd(count, 32, objects=300, spread=0.8)
    heard: list[str] = []
    gallery = Gallery.create(folder, index=kind, tell=heard.append)
    return gallery.add(features_of(vectors, names)), vectors, heard


def recall(gallery: Gallery, vectors: Any, alive: Any) -> float:
    """Of searches by new queries against a full sort of what is there."""
    rng = np.random.default_rng(5)
    queries = vectors[rng.permutation(len(vectors))[:100]] + 0.3 * rng.normal(size=(100, 32))
    rows, asked = unit(vectors[alive]), unit(queries)
    best = np.sort(asked @ rows.T, axis=1)[:, -10:]
    found = gallery.views.get("image").nearest(queries.astype(np.float32), 10)
    right = sum(
        (near.similarities >= low - 1e-5).sum() for near, low in zip(found, best[:, 0], strict=True)
    )
    assert all(len(near.keys) == 10 for near in found)  # never fewer than there are
    return float(right) / 1000


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_a_coarse_index_keeps_its_recall_whatever_happens(
    tmp_path: Path, small: None, kind: str
) -> None:
    gallery, vectors, heard = grown(tmp_path / "g", kind)
    info = gallery.info()["index"]
    assert info["kind"] == kind and info["recall@10"] >= 0.99
    assert recall(gallery, vectors, np.ones(3000, bool)) >= 0.97
    assert [line for line in heard if line.startswith(("building", "recall@10"))]
    alive = np.ones(3000, bool)
    rng = np.random.default_rng(9)
    for _ in range(4):
        gone = rng.choice(np.flatnonzero(alive), 200, replace=False)
        alive[gone] = False
        gallery.remove([f"/g/{at}.png" for at in gone])
        assert recall(gallery, vectors, alive) >= 0.97
        assert gallery.info()["index"]["recall@10"] >= 0.99
    view = gallery.views.get("image")
    assert view.base.info["vectors"] < 3000  # it was made anew on the way
    # And with a filter, which is looked at one by one.
    near = view.nearest(vectors[:1], 10, keep=view.keep(view.everything()[0][::20]))
    assert len(near[0].keys) == 10


@pytest.mark.parametrize(("floor", "kind"), [(0.9, "ivf"), (1.01, "flat")])
def test_the_automatic_choice_keeps_cells_only_where_they_find_what_is_near(
    monkeypatch: pytest.MonkeyPatch, floor: float, kind: str
) -> None:
    monkeypatch.setattr("resight.search.index.FLAT_BELOW", 1500)
    rows = unit(np.random.default_rng(3).normal(size=(2000, 4)))
    heard: list[str] = []
    at = np.arange(2000)
    index = build(new_flat(4, rows), at, at, "auto", floor=floor, tell=heard.append)
    assert index.info["kind"] == kind and (index.coarse is None) == (kind == "flat")
    assert ("every vector is looked at instead" in heard[-1]) == (kind == "flat")
    _, found = index.search(rows[:50], 1)  # candidates: one is the row itself
    assert (found == at[:50, None]).any(axis=1).all()
    asked_for = build(new_flat(4, rows), at, at, "ivf", floor=floor)
    assert asked_for.info["kind"] == "ivf"


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_a_fall_of_recall_is_noticed_and_mended(tmp_path: Path, small: None, kind: str) -> None:
    gallery, vectors, heard = grown(tmp_path / "g", kind)
    view = gallery.views.get("image")
    assert view.recall() >= 0.98
    if kind == "ivf":
        set_effort(view.base, 1)  # as if its cells fitted no more
    else:  # as if half of its graph were of other vectors
        torn = faiss.IndexHNSWSQ(32, faiss.ScalarQuantizer.QT_8bit, 32, faiss.METRIC_INNER_PRODUCT)
        torn.train(view.base.rows)
        torn.add(np.concatenate([view.base.rows[:1500], view.base.rows[:1499:-1]]))
        view.base.coarse = torn
    poor = view.recall()
    assert poor < 0.97
    alive = np.ones(3000, bool)
    alive[:100] = False
    gallery.remove([f"/g/{at}.png" for at in range(100)])
    assert recall(gallery, vectors, alive) >= 0.97
    assert any("recall@10 has fallen to" in line for line in heard)
    assert gallery.views.get("image") is not view
    assert gallery.views.get("image").recall() >= 0.98
