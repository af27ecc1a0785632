"""The overview against slow oracles: outliers, pairs nearly equal, the map and its keeping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resight.search.doubtful import FAR, near_pairs, outliers
from resight.search.engines.contract import Sum
from resight.search.index import Index, new_flat, unit
from resight.search.layout import PCA, TSNE, have_tsne, on_plane
from resight.search.overview import Overview, identity, load, make, make_in, store

RNG = np.random.default_rng


def crowd(objects: int, each: int, dim: int, seed: int, noise: float = 0.3) -> Any:
    """Ids, object ids and vectors (N, D) around a centre for each object."""
    rng = RNG(seed)
    centres = rng.normal(size=(objects, dim))
    groups = np.repeat(np.arange(1, objects + 1), each)
    vectors = centres[groups - 1] + noise * rng.normal(size=(len(groups), dim))
    return np.arange(5, 5 + len(groups)), groups, vectors.astype(np.float32)


def sums_of(groups: Any, vectors: Any) -> list[Sum]:
    """Two cameras an object."""
    made = []
    for group in np.unique(groups):
        for camera in (0, 1):
            own = vectors[groups == group][camera::2].astype(np.float64)
            made.append(Sum(f"o{group}", str(camera), len(own), own.sum(0), 0.0, int(group)))
    return made


@pytest.mark.parametrize("seed", range(4))
def test_outliers_by_hand(seed: int) -> None:
    ids, groups, vectors = crowd(8, 7, 24, seed)
    strange = RNG(seed).choice(len(ids), 3, replace=False)
    vectors[strange] = RNG(seed + 9).normal(size=(3, 24))
    groups[:7] = 0  # of no object: they don't count
    sums = [one for one in sums_of(groups, vectors) if one.object_id]
    similar = {}
    for at in range(len(ids)):
        others = (groups == groups[at]) & (np.arange(len(ids)) != at)
        if groups[at] and others.sum() >= 2:
            mean = vectors[others].astype(np.float64).mean(0)
            own = vectors[at].astype(np.float64)
            similar[ids[at]] = mean @ own / np.linalg.norm(mean) / np.linalg.norm(own)
    values = np.array(list(similar.values()))
    middle = np.median(values)
    least = middle - FAR * 1.4826 * np.median(np.abs(values - middle))
    wanted = sorted((id_ for id_ in similar if similar[id_] < least), key=lambda i: similar[i])
    blocks = [(ids[s], groups[s], vectors[s]) for s in (slice(0, 11), slice(11, None))]
    far = outliers(sums, blocks)
    assert far.ids.tolist() == wanted and wanted
    assert far.similarities == pytest.approx([similar[id_] for id_ in wanted], abs=1e-9)
    assert far.usual == pytest.approx(middle)
    assert [groups[ids == id_][0] for id_ in far.ids] == far.objects.tolist()


def test_few_images_have_no_outliers() -> None:
    ids, groups, vectors = crowd(2, 4, 6, 1)
    assert len(outliers(sums_of(groups, vectors), [(ids, groups, vectors)]).ids) == 0
    assert len(outliers([], []).ids) == 0


@pytest.mark.parametrize("seed", range(4))
def test_pairs_by_hand(seed: int) -> None:
    ids, groups, vectors = crowd(10, 4, 12, seed, 0.05)
    rng = RNG(seed)
    for a, b in ((0, 9), (5, 30), (12, 13)):  # the last two are of one object
        vectors[a] = vectors[b] * 2 + 0.001 * rng.normal(size=12)
    groups[9], same = 0, np.zeros(len(ids), np.int64)
    same[[16, 17]] = 4  # the same file within an object
    rows = unit(vectors)
    cosines = rows.astype(np.float64) @ rows.T.astype(np.float64)
    wanted = {
        (int(ids[a]), int(ids[b])): cosines[a, b]
        for a in range(len(ids))
        for b in range(a + 1, len(ids))
        if cosines[a, b] >= 0.9
        and (
            (groups[a] and groups[b] and groups[a] != groups[b]) or (same[a] and same[a] == same[b])
        )
    }
    found = near_pairs(Index(new_flat(12, rows), ids, groups), same, 0.9, 100)
    assert {tuple(pair) for pair in found.ids.tolist()} == set(wanted)
    assert (int(ids[5]), int(ids[30])) in wanted and (int(ids[16]), int(ids[17])) in wanted
    assert (np.diff(found.similarities) <= 0).all()
    for pair, alike in zip(found.ids.tolist(), found.similarities, strict=True):
        assert alike == pytest.approx(wanted[tuple(pair)], abs=1e-6)
    assert near_pairs(Index(new_flat(12, rows), ids, groups), same, 0.9, 1).ids.shape == (1, 2)


def neighbours(rows: Any, k: int) -> Any:
    similar = rows @ rows.T
    np.fill_diagonal(similar, -2)
    near = np.argsort(-similar, axis=1)[:, :k]
    return near, np.take_along_axis(similar, near, 1).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 29, 60])
def test_positions(count: int) -> None:
    rows = unit(RNG(1).normal(size=(count, 8))) if count else np.zeros((0, 8), np.float32)
    xy, method = on_plane(rows, *neighbours(rows, max(0, min(20, count - 1))))
    assert xy.shape == (count, 2) and xy.dtype == np.float32 and np.isfinite(xy).all()
    if count > 1:
        assert np.abs(xy).max() == pytest.approx(1, abs=1e-5)
    assert method == (TSNE if count >= 30 and have_tsne() else PCA)


def test_like_ones_are_near_each_other() -> None:
    _, groups, vectors = crowd(6, 20, 32, 3)
    rows = unit(vectors)
    xy, _ = on_plane(rows, *neighbours(rows, 40))
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    same = groups[:, None] == groups[None]
    assert apart[same].mean() < 0.5 * apart[~same].mean()


def test_two_components_are_those_of_numpy() -> None:
    rows = unit(RNG(2).normal(size=(25, 7)) * [5, 3, 1, 1, 1, 1, 1])
    xy, method = on_plane(rows, *neighbours(rows, 10))
    left, values, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    wanted = left[:, :2] * values[:2]
    for axis in range(2):
        correlation = np.corrcoef(xy[:, axis], wanted[:, axis])[0, 1]
        assert abs(correlation) == pytest.approx(1, abs=1e-4)
    assert method == PCA


@pytest.fixture
def folder(shapes: Path, embedder: Any, tmp_path: Path) -> Path:
    from resight.search.gallery import Gallery

    with Gallery.create(tmp_path / "g", embedder) as gallery:
        gallery.add(shapes)
    return tmp_path / "g"


def test_kept_and_made_again_only_for_other_vectors(folder: Path) -> None:
    from resight.search.editing import move, remove
    from resight.search.gallery import Gallery

    assert make_in(folder)
    with Gallery.open(folder) as gallery:
        of = identity(gallery.engine.meta())
        first = load(folder, of)
        assert first is not None and first.told["images"] == 60 == len(first.ids)
        assert first.ids.tolist() == gallery.engine.ids()
        move(gallery.engine, [18], "another")
        second = make(gallery.engine, first)
        assert second.told["version"] > first.told["version"]
        assert second.told["fingerprint"] == first.told["fingerprint"]
        assert np.array_equal(second.xy, first.xy)
        remove(gallery.engine, [1])
        third = make(gallery.engine, second)
        assert third.told["fingerprint"] != first.told["fingerprint"] and 1 not in third.ids
        assert load(folder, of | {"generation": -1}) is None
    (folder / "index" / "overview.npz").write_bytes(b"no")
    assert load(folder, of) is None
    store(folder, third)
    kept = load(folder, of)
    assert kept is not None and kept.told == third.told
    for name in Overview.__annotations__:
        assert np.array_equal(getattr(kept, name), getattr(third, name))


def test_only_one_process_makes_it(folder: Path) -> None:
    import fcntl

    (folder / "index").mkdir(exist_ok=True)
    with open(folder / "index" / "overview.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not make_in(folder)
    assert make_in(folder)


def test_an_empty_gallery(embedder: Any, tmp_path: Path) -> None:
    from resight.search.gallery import Gallery

    with Gallery.create(tmp_path / "g", embedder):
        pass
    assert make_in(tmp_path / "g")
