"""The candidate pool on disk: whole, resumable, told apart, and ranked by inliers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damage import flip
from tests.graph.test_neighbours import rows
from tests.oracles import neighbours as oracle

from resight.errors import UserError
from resight.graph import pool as module
from resight.graph.neighbours import METHODS
from resight.graph.pool import Pool, add_inliers, build_pool


def same(a: Pool, b: Pool) -> bool:
    inliers = a.inliers is None and b.inliers is None
    if a.inliers is not None and b.inliers is not None:
        inliers = np.array_equal(a.inliers, b.inliers)
    return (
        np.array_equal(a.neighbours, b.neighbours)
        and np.array_equal(a.similarities, b.similarities)
        and inliers
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_folder_holds_what_memory_would(method, tmp_path):
    vectors, told, seen = rows(300), [], []
    memory = build_pool(vectors, k=12, method=method, key={"seed": 0})
    disk = build_pool(
        vectors,
        str(tmp_path / "p"),
        k=12,
        method=method,
        key={"seed": 0},
        block=128,
        tell=told.append,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert same(disk, memory) and same(Pool.load(tmp_path / "p"), memory)
    assert isinstance(disk.neighbours, np.memmap) and disk.k == 12 and len(disk) == 300
    assert seen == [(128, 300), (256, 300), (300, 300)]
    assert disk.info["method"] == method and disk.info["complete"] and disk.info["seconds"] > 0
    assert len(told) == (method == "approximate")
    assert disk.info["recall"] == 1.0 or f"{disk.info['recall']:.1%}" in told[0]
    near = oracle.neighbours(vectors, 12)
    if method == "exact":
        assert disk.neighbours[:5].tolist() == [[j for j, _ in row] for row in near[:5]]
        cosines = np.array([[cosine for _, cosine in row] for row in near])
        np.testing.assert_allclose(np.asarray(disk.similarities, float), cosines, atol=5e-4)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_k_is_cut(n, tmp_path):
    pool = build_pool(rows(n), tmp_path / "p", k=500)
    assert pool.k == max(n - 1, 1)
    assert (np.asarray(pool.neighbours) == -1).sum() == (n == 1)
    assert pool.scores(np.arange(n)).min() >= (-2 if n == 1 else -1)


def test_rows_that_are_not_valid(tmp_path):
    vectors, valid = rows(20), np.ones(20, bool)
    valid[[3, 7]] = False
    vectors[5] = np.nan
    pool = build_pool(vectors, tmp_path / "p", k=30, valid=valid)
    assert pool.k == 19
    usable = np.setdiff1d(np.arange(20), [3, 5, 7])
    for row in range(20):
        there = pool.neighbours[row][pool.neighbours[row] >= 0]
        wanted = np.setdiff1d(usable, row) if row in usable else []
        assert sorted(there.tolist()) == list(wanted)
    assert (np.asarray(pool.similarities)[pool.neighbours < 0] == -2).all()


def test_valid_of_features_counts():
    class Like:
        shape, valid = (4, 3), np.array([True, False, True, True])

        def __len__(self):
            return 4

        def __getitem__(self, part):
            return rows(4, 3)[part]

    assert not (build_pool(Like(), k=3).neighbours == 1).any()


def test_the_same_again_is_opened(tmp_path, monkeypatch):
    build_pool(rows(50), tmp_path / "p", k=5, key={"a": 1})
    monkeypatch.setattr(module, "open_search", None)  # nothing is searched
    assert build_pool(rows(50), tmp_path / "p", k=5, key={"a": 1}).k == 5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"key": {"a": 2}}, "a"),
        ({"key": {}}, "a"),
        ({"key": {"a": 1, "b": 0}}, "b"),
        ({"k": 6}, "k"),
        ({"method": "faiss"}, "method"),
    ],
)
def test_another_pool_is_not_replaced(change, named, tmp_path):
    usual = {"k": 5, "key": {"a": 1}, "method": "exact"}
    first = build_pool(rows(50), tmp_path / "p", **usual)
    with pytest.raises(UserError, match=f"made with other {named}; .*--force"):
        build_pool(rows(50), tmp_path / "p", **(usual | change))
    assert same(Pool.load(tmp_path / "p"), first)
    other = build_pool(rows(50), tmp_path / "p", **(usual | change), force=True)
    assert same(other, build_pool(rows(50), **(usual | change)))


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "photo.jpg").touch()
    for force in (False, True):
        with pytest.raises(UserError, match="holds other files"):
            build_pool(rows(5), tmp_path, force=force)
    assert (tmp_path / "photo.jpg").is_file()


@pytest.mark.parametrize("name", ["neighbours.npy", "similarities.npy", "inliers.npy", "pool.json"])
def test_damage_is_told(name, tmp_path):
    pool = build_pool(rows(50), tmp_path, k=5)
    add_inliers(pool, tmp_path, count, top=3, min_similarity=-1, weight=1, cap=9)
    if name.endswith("s.npy") and name != "inliers.npy":
        name = f"verified-{name}"
    content = (tmp_path / name).read_bytes()
    for broken, words in ((b"", "damaged|not valid JSON"), (content[:100], "damaged|not valid")):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(UserError, match=f"{name}: .*({words})"):
            Pool.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name}: .*(gone|not found)"):
        Pool.load(tmp_path)


@pytest.mark.parametrize("name", ["neighbours.npy", "verified-similarities.npy", "inliers.npy"])
def test_a_flipped_bit_is_told(name, tmp_path):
    pool = build_pool(rows(50), tmp_path, k=5, block=16)
    assert same(Pool.load(tmp_path), pool)
    add_inliers(pool, tmp_path, count, top=3, min_similarity=-1, weight=1, cap=9)
    flip(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: damaged, not what was written.*delete"):
        Pool.load(tmp_path)
    record = json.loads((tmp_path / "pool.json").read_text())
    del record["sums"], record["verified"]["sums"]  # as older versions wrote it
    (tmp_path / "pool.json").write_text(json.dumps(record))
    assert len(Pool.load(tmp_path)) == 50


_CHILD = """
import sys, time
import numpy as np
from resight.graph.pool import build_pool
slow = lambda done, total: time.sleep(60 if done > 128 else 0)  # killed after the third block
build_pool(np.load(sys.argv[2]), sys.argv[1], k=7, key={"a": 1}, block=64, progress=slow)
"""


def test_killed_and_started_again_gives_the_same(tmp_path):
    out = tmp_path / "p"
    np.save(tmp_path / "rows.npy", rows(500))
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(out), str(tmp_path / "rows.npy")])
    end = time.monotonic() + 120
    whole = 128 + 192 * 7 * 2  # bytes: the head, and three blocks of float16
    while time.monotonic() < end:
        assert child.poll() is None, "the child ended by itself"
        path = out / "similarities.npy"
        if path.is_file() and path.stat().st_size >= whole:
            break
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    with pytest.raises(UserError, match="not finished; run the same again"):
        Pool.load(out)
    with (out / "neighbours.npy").open("ab") as file:
        file.write(b"half a row")
    told, seen = [], []
    pool = build_pool(
        rows(500),
        out,
        k=7,
        key={"a": 1},
        block=64,
        tell=told.append,
        progress=lambda done, total: seen.append(done),
    )
    assert same(pool, build_pool(rows(500), k=7)) and same(pool, Pool.load(out))
    assert len(pool.info["sums"]) == 2  # over what was there before, too
    assert seen == [256, 320, 384, 448, 500] and "192 of 500 images are done already" in told[0]


@pytest.mark.parametrize("length", [0, 3, 127, 128, 129])
def test_cut_at_any_byte(length, tmp_path):
    """Killed while the first file was being begun."""
    whole = build_pool(rows(100), tmp_path / "p", k=4)
    expected = build_pool(rows(100), k=4)
    record = json.loads((tmp_path / "p" / "pool.json").read_text())
    (tmp_path / "p" / "pool.json").write_text(json.dumps(record | {"complete": False}))
    del whole
    os.truncate(tmp_path / "p" / "neighbours.npy", length)
    assert same(build_pool(rows(100), tmp_path / "p", k=4, block=32), expected)


def count(pairs: np.ndarray) -> np.ndarray:
    """Inliers that have nothing to do with similarity; some can't be told."""
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    return (pairs[:, 0] * 7 + pairs[:, 1] * 13) % 40 - 1


@given(
    n=st.integers(1, 30),
    k=st.integers(1, 12),
    top=st.integers(1, 14),
    low=st.sampled_from([-3.0, 0.0, 0.3, 2.0]),
    weight=st.sampled_from([0.0, 0.5, 5.0]),
    cap=st.sampled_from([1, 20]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_inliers_against_loops(n, k, top, low, weight, cap, seed):
    plain = build_pool(rows(n, 4, seed), k=k)
    pool = add_inliers(plain, None, count, top=top, min_similarity=low, weight=weight, cap=cap)
    scores = pool.scores(np.arange(n), weight, cap)
    assert pool.inliers is not None and pool.inliers.shape == (n, min(top, plain.k))
    for row in range(n):
        wanted = []
        for column in range(plain.k):
            other, cosine = int(plain.neighbours[row, column]), plain.similarities[row, column]
            inliers = -1
            if column < top and other >= 0 and cosine >= low:
                inliers = int(count(np.array([sorted((row, other))]))[0])
            score = np.float32(cosine) + np.float32(weight * max(min(inliers, cap), 0) / cap)
            wanted.append((column, other, cosine, inliers, score))
        wanted[:top] = sorted(wanted[:top], key=lambda entry: (-entry[4], entry[0]))
        assert pool.neighbours[row].tolist() == [entry[1] for entry in wanted]
        assert pool.similarities[row].tolist() == [entry[2] for entry in wanted]
        assert pool.inliers[row].tolist() == [entry[3] for entry in wanted[:top]]
        np.testing.assert_allclose(scores[row], [entry[4] for entry in wanted], rtol=1e-6)


def test_inliers_on_disk_start_from_the_pool_as_it_was(tmp_path):
    vectors = rows(60, 4)
    plain = build_pool(vectors, tmp_path, k=8)
    first = {"top": 5, "min_similarity": 0.0, "weight": 1.0, "cap": 30}
    other = {"top": 8, "min_similarity": -1.0, "weight": 0.2, "cap": 10}
    for how in (first, other, first):
        pool = add_inliers(Pool.load(tmp_path), tmp_path, count, **how)
        assert same(pool, add_inliers(build_pool(vectors, k=8), None, count, **how))
        assert same(pool, Pool.load(tmp_path)) and pool.info["verified"]["top"] == how["top"]
    assert isinstance(pool.inliers, np.memmap) and not same(pool, plain)
    assert same(build_pool(vectors, tmp_path, k=8), pool)  # opened, as it is
    with pytest.raises(ValueError, match="verified already"):
        add_inliers(pool, None, count, **first)


def test_a_verification_that_breaks_off_leaves_the_pool(tmp_path):
    plain = build_pool(rows(60, 4), tmp_path, k=8)

    def stop(pairs):
        raise KeyboardInterrupt

    how = {"top": 5, "min_similarity": 0.0, "weight": 1.0, "cap": 30}
    with pytest.raises(KeyboardInterrupt):
        add_inliers(plain, tmp_path, stop, **how)
    assert same(Pool.load(tmp_path), plain)


def test_more_inliers_than_fit_and_none_to_ask():
    plain = build_pool(rows(10, 4), k=3)
    how = {"top": 3, "weight": 1.0, "cap": 30}
    many = add_inliers(plain, None, lambda p: np.full(len(p), 10**6), min_similarity=-2, **how)
    assert many.inliers is not None and (many.inliers == 32767).all()
    none = add_inliers(plain, None, lambda p: 1 / 0, min_similarity=2, **how)
    assert none.inliers is not None and (none.inliers == -1).all()
