"""The memory of vectors: what is written is read, windows go round, kill -9 and back."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damage import flip

from resight.errors import UserError
from resight.losses.mined import memory_contrastive
from resight.mining import journal
from resight.mining.memory import BITS, MemoryBank
from resight.mining.relations import Lists


def vectors(count: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32) * 7


def rounded(rows: np.ndarray) -> np.ndarray:
    """Unit length, as float16 holds it."""
    wide = np.asarray(rows, np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16)


def bank(tmp_path: Path, count: int = 11, dim: int = 4) -> MemoryBank:
    return MemoryBank.create(tmp_path / "memory", count, dim, seed=3)


def state(memory: MemoryBank) -> list[bytes]:
    """All that a memory holds, bit for bit."""
    every = np.arange(len(memory))
    return [memory.read(every, kind).tobytes() for kind in BITS] + [
        memory.filled(every, kind).tobytes() for kind in BITS
    ]


def test_a_new_one_is_empty(tmp_path):
    memory = bank(tmp_path)
    every = np.arange(11)
    assert len(memory) == 11 and memory.dim == 4
    assert not memory.filled(every).any() and not memory.read(every, "plain").any()
    assert not any(piece.vectors.any() or piece.filled.any() for piece in memory.window(3, 99))


def test_halves_are_a_copy_of_what_read_gives(tmp_path):
    memory, rows = bank(tmp_path), np.array([7, 0, 7, 5])
    memory.write(np.array([7, 0]), plain=vectors(2))
    found = memory.halves(rows, "plain")
    assert found.dtype == np.float16 and not found[3].any()
    assert (found == memory.read(rows, "plain")).all()
    assert (found == memory.vectors("plain")[memory.slots[rows]]).all()
    found[:] = 1
    assert (memory.read(rows, "plain")[3] == 0).all()


def test_what_is_written_is_read(tmp_path):
    memory, rows = bank(tmp_path), np.array([7, 0, 4])
    memory.write(rows, augmented=vectors(3), plain=vectors(3, seed=1))
    memory.write(np.array([2]), plain=vectors(1, seed=2))
    for again in (memory, MemoryBank.open(tmp_path / "memory", 11, 4)):
        np.testing.assert_allclose(again.read(rows, "augmented"), rounded(vectors(3)), atol=1e-3)
        plain = again.read(np.array([0, 2, 1]), "plain")
        wanted = rounded(np.concatenate([vectors(3, seed=1)[1:2], vectors(1, seed=2)]))
        np.testing.assert_allclose(plain[:2], wanted, atol=1e-3)
        assert plain.dtype == np.float32 and not plain[2].any()
        assert not again.read(np.array([2]), "augmented").any()
        assert np.flatnonzero(again.filled(np.arange(11))).tolist() == [0, 4, 7]
        assert np.flatnonzero(again.filled(np.arange(11), "plain")).tolist() == [0, 2, 4, 7]
        assert again.filled(np.array([2, 7]), "augmented").tolist() == [False, True]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12))
def test_of_rows_that_come_twice_the_last_is_kept(tmp_path_factory, drawn):
    """Vectors without a direction (kind 3) are passed over."""
    memory = MemoryBank.create(tmp_path_factory.mktemp("m") / "memory", 6, 4, 0)
    values = vectors(max(1, len(drawn)))[: len(drawn)]
    wanted: dict[int, np.ndarray] = {}
    for k, (row, kind) in enumerate(drawn):
        if kind == 3:
            values[k] = [0, 0, 0, 0] if k % 2 else [1, np.nan, 0, np.inf]
        else:
            wanted[row] = rounded(values[k : k + 1])[0]
    memory.write(np.array([row for row, _ in drawn], np.int32), plain=values)
    got = memory.read(np.arange(6), "plain")
    for row in range(6):
        np.testing.assert_allclose(got[row], wanted.get(row, np.zeros(4)), atol=1e-3)
        assert memory.filled(np.array([row]), "plain")[0] == (row in wanted)


@pytest.mark.parametrize("scale", [1e-10, 1e30])
def test_lengths_do_not_matter(tmp_path, scale):
    memory = bank(tmp_path)
    memory.write(np.array([1]), plain=vectors(1) * np.float32(scale))
    np.testing.assert_allclose(memory.read(np.array([1]), "plain"), rounded(vectors(1)), atol=1e-3)


def test_mistakes_are_told(tmp_path):
    memory = bank(tmp_path)
    for row in (-1, 11):
        with pytest.raises(IndexError, match="of 11"):
            memory.read(np.array([0, row]), "plain")
    with pytest.raises(ValueError, match="2 rows"):
        memory.write(np.array([0, 1]), plain=vectors(3))
    with pytest.raises(ValueError, match="holds nothing"):
        MemoryBank.create(tmp_path / "other", 0, 4, 0)
    with pytest.raises(UserError, match="new folder"):
        bank(tmp_path)
    with pytest.raises(UserError, match="12 × 4 are needed"):
        MemoryBank.open(tmp_path / "memory", 12, 4)
    with pytest.raises(UserError, match="not found"):
        MemoryBank.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="can't go back"):
        memory.restore("00000001-abcd")


@pytest.mark.parametrize("name", ["augmented", "plain", "filled", "slots"])
def test_damaged_files_are_told(tmp_path, name):
    bank(tmp_path)
    path = tmp_path / "memory" / f"{name}.npy"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:5], b"", whole[:-4] + b"\xff\xff\xff\x7f"):
        path.write_bytes(content)
        if content[:-4] == whole[:-4] and name != "slots":
            continue  # other numbers
        with pytest.raises(UserError, match="damaged"):
            MemoryBank.open(tmp_path / "memory")
        assert path.read_bytes() == content


@pytest.mark.parametrize(("size", "step"), [(11, 4), (11, 11), (7, 50), (1, 3), (10, 5)])
def test_windows_go_round(tmp_path, size, step):
    """Consecutive steps see each row once before any comes again; the vectors are the files'."""
    memory = bank(tmp_path, size)
    memory.write(np.arange(size)[::2], augmented=vectors(size)[::2])
    wanted = np.where(np.arange(size)[:, None] % 2, 0, rounded(vectors(size)))
    seen: list[int] = []
    start = 0
    for _ in range(2 * size):
        window = memory.window(start, step)
        assert len(window) <= 2
        rows = np.concatenate([piece.rows for piece in window])
        assert len(rows) == min(step, size)
        for piece in window:
            np.testing.assert_allclose(piece.vectors, wanted[piece.rows], atol=1e-3)
            np.testing.assert_array_equal(piece.filled, piece.rows % 2 == 0)
            assert np.shares_memory(piece.vectors, memory.window(0, size)[0].vectors)
        seen += rows.tolist()
        start += len(rows)
    for turn in range(0, len(seen) - size + 1, size):
        assert sorted(seen[turn : turn + size]) == list(range(size))
    assert memory.window(5, 0) == []


def test_the_order_is_drawn_and_kept(tmp_path):
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        memory = MemoryBank.create(tmp_path / name, 500, 2, seed)
        np.testing.assert_array_equal(memory.slots[memory.rows], np.arange(500))
        orders.append(MemoryBank.open(tmp_path / name).rows.tolist())
    assert orders[0] == orders[1] != orders[2]
    assert sum(a == b for a, b in zip(orders[0], range(500), strict=True)) < 10


def csr(lists: list[list[int]]) -> Lists:
    start = np.cumsum([0, *map(len, lists)])
    return Lists(start, np.array([row for some in lists for row in some], np.int64))


some_rows = st.lists(st.lists(st.integers(0, 10), unique=True), min_size=3, max_size=3)


@settings(max_examples=60)
@given(st.integers(0, 40), st.integers(0, 14), some_rows, some_rows)
def test_excluded_pairs_are_those_of_the_lists(tmp_path_factory, start, count, one, other):
    memory = MemoryBank.create(tmp_path_factory.mktemp("m") / "memory", 11, 2, 0)
    window = memory.window(start, count)
    rows = [int(row) for piece in window for row in piece.rows]
    wanted = sorted(
        (i, column)
        for lists in (one, other)
        for i, some in enumerate(lists)
        for column, row in enumerate(rows)
        if row in some
    )
    image, column = memory.excluded(window, [csr(one), csr(other)])
    assert image.dtype == column.dtype == torch.int64
    assert sorted(zip(image.tolist(), column.tolist(), strict=True)) == wanted


def test_the_loss_over_a_window(tmp_path):
    """Window, excluded pairs and loss together, against the rows read one by one."""
    memory = bank(tmp_path, 40)
    memory.write(np.arange(0, 40, 2), augmented=vectors(20))
    embeddings = torch.from_numpy(vectors(3, seed=5))
    lists = [[0, 2, 4, 39], [], list(range(20))]
    window = memory.window(30, 25)
    views = [torch.from_numpy(piece.vectors) for piece in window]
    got = memory_contrastive(embeddings, views, memory.excluded(window, [csr(lists)]), 0.2)
    total = 0.0
    for i in range(3):
        e = embeddings[i].double().numpy()
        for row in (int(row) for piece in window for row in piece.rows):
            s = float(e / np.linalg.norm(e) @ memory.read(np.array([row]), "augmented")[0])
            total += s if row not in lists[i] and s > 0.2 else 0
    assert got.item() == pytest.approx(total / 3, rel=1e-5)


def scribble(memory: MemoryBank, rng: np.random.Generator, steps: int) -> None:
    for _ in range(steps):
        rows = rng.integers(0, len(memory), 5)
        kinds = [("augmented", "plain"), ("augmented",), ("plain",)][rng.integers(3)]
        shape = (5, memory.dim)
        memory.write(rows, **{kind: rng.normal(size=shape).astype(np.float32) for kind in kinds})


@settings(max_examples=40)
@given(st.integers(0, 2**20), st.lists(st.integers(0, 6), min_size=1, max_size=4), st.booleans())
def test_back_to_any_checkpoint(tmp_path_factory, seed, steps, reopen):
    folder = tmp_path_factory.mktemp("m") / "memory"
    memory, rng = MemoryBank.create(folder, 11, 3, 0), np.random.default_rng(seed)
    scribble(memory, rng, 3)
    made: list[tuple[str, list[bytes]]] = []
    for some in steps:
        made.append((memory.checkpoint(), state(memory)))
        scribble(memory, rng, some)
    while made:
        name, wanted = made[int(rng.integers(len(made)))]
        memory = MemoryBank.open(folder) if reopen else memory
        memory.restore(name)
        assert state(memory) == wanted
        scribble(memory, rng, 2)
        memory.restore(name)
        assert state(memory) == wanted
        made = made[: [other for other, _ in made].index(name)]


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_restore_that_is_cut_short_is_made_again(tmp_path, monkeypatch, stop):
    memory, rng = bank(tmp_path), np.random.default_rng(0)
    scribble(memory, rng, 4)
    name, wanted = memory.checkpoint(), state(memory)
    for _ in range(3):
        scribble(memory, rng, 2)
        memory.checkpoint()
    scribble(memory, rng, 2)
    left = iter(range(stop))

    def remove(folder: Path, other: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        journal.remove(folder, other)

    with monkeypatch.context() as patch:
        patch.setattr("resight.mining.memory.remove", remove)
        with pytest.raises(KeyboardInterrupt) if stop < 3 else contextlib.nullcontext():
            memory.restore(name)
    memory = MemoryBank.open(tmp_path / "memory")
    memory.restore(name)
    assert state(memory) == wanted


def test_kept_leaves_nothing_older(tmp_path):
    memory, rng = bank(tmp_path), np.random.default_rng(0)
    first = memory.checkpoint()
    scribble(memory, rng, 4)
    second, wanted = memory.checkpoint(), state(memory)
    scribble(memory, rng, 4)
    memory.kept(second)
    with pytest.raises(UserError, match="can't go back"):
        memory.restore(first)
    assert len(list((tmp_path / "memory").glob("journal-*"))) == 1
    memory.restore(second)
    assert state(memory) == wanted
    assert memory.checkpoint() not in (first, second)


def test_a_slot_is_written_down_once(tmp_path):
    memory = bank(tmp_path)
    scribble(memory, np.random.default_rng(0), 50)
    assert not list((tmp_path / "memory").glob("journal-*"))  # nothing to go back to
    name = memory.checkpoint()
    path = tmp_path / "memory" / f"journal-{name}"
    scribble(memory, np.random.default_rng(1), 200)
    size = path.stat().st_size
    assert size == 11 * (8 + 1 + 2 * 2 * 4)
    memory = MemoryBank.open(tmp_path / "memory")
    scribble(memory, np.random.default_rng(2), 50)
    assert path.stat().st_size == size


@pytest.mark.parametrize("cut", [1, 12, 24])
def test_the_torn_end_of_a_journal_is_ignored(tmp_path, cut):
    memory, rng = bank(tmp_path), np.random.default_rng(0)
    scribble(memory, rng, 4)
    name, wanted = memory.checkpoint(), state(memory)
    memory.write(np.array([1, 2]), plain=vectors(2))
    with open(tmp_path / "memory" / f"journal-{name}", "ab") as file:
        file.write(b"\x05" * cut)  # died before slot 5 was overwritten
    for _ in range(2):  # and goes on without a restore, too
        memory = MemoryBank.open(tmp_path / "memory")
        scribble(memory, rng, 3)
        memory.restore(name)
        assert state(memory) == wanted


def live(folder: Path, seed: int, last: str) -> None:
    """Train without end: write, make checkpoints, each with a whole copy of the files beside it."""
    rng = np.random.default_rng(seed)
    if last:
        memory = MemoryBank.open(folder)
        memory.restore(last)
    else:  # as training does: what died before its first checkpoint is begun anew
        shutil.rmtree(folder, ignore_errors=True)
        memory = MemoryBank.create(folder, 300, 512, 0)
    for turn in itertools.count():
        scribble(memory, rng, int(rng.integers(1, 12)))
        name = memory.checkpoint()
        part = folder.parent / f"part {seed} {turn}"
        shutil.copytree(folder, part, ignore=shutil.ignore_patterns("journal-*"))
        scribble(memory, rng, 3)
        part.rename(folder.parent / f"at {name}")  # as a checkpoint's file: whole or not at all
        scribble(memory, rng, 3)
        memory.kept(name)


def test_killed_at_any_moment_it_goes_back_exactly(tmp_path):
    """kill -9 while it restores, writes, makes checkpoints: the state is that of a full copy."""
    folder = tmp_path / "memory"
    chance, last, seen, slow = random.Random(7), "", set(), 1.0
    for attempt in range(25):
        child = multiprocessing.get_context("fork").Process(
            target=live, args=(folder, attempt, last)
        )
        child.start()
        time.sleep(chance.uniform(0, 0.1) * slow)
        assert child.is_alive()
        child.kill()
        child.join()
        copies = sorted(path.name.removeprefix("at ") for path in tmp_path.glob("at *"))
        if not copies:
            slow = min(1.5 * slow, 50)  # a busy machine
            continue
        last = copies[-1]
        if attempt % 3:  # every third time the next child restores, and may be killed at it
            memory = MemoryBank.open(folder)
            memory.restore(last)
            for name in ("augmented", "plain", "filled"):
                own, other = (f / f"{name}.npy" for f in (folder, tmp_path / f"at {last}"))
                assert own.read_bytes() == other.read_bytes()
        seen.add(last)
        for name in copies[:-1]:
            shutil.rmtree(tmp_path / f"at {name}")
    assert len(seen) > 2


@pytest.mark.parametrize("kind", ["augmented", "plain"])
def test_a_flipped_bit_is_told_when_going_back(tmp_path, kind):
    memory = bank(tmp_path)
    memory.write(np.arange(9), augmented=vectors(9), plain=vectors(9)[::-1])
    name = memory.checkpoint()
    memory.write(np.arange(4), augmented=vectors(9)[5:], plain=vectors(9)[5:])
    memory.restore(name)
    slot = int(memory.slots[6])
    path = tmp_path / "memory" / f"{kind}.npy"
    flip(path, 128 + slot * 2 * memory.dim)
    with pytest.raises(UserError, match=rf"{kind}\.npy: damaged, .* \(slot {slot}\); delete"):
        MemoryBank.open(tmp_path / "memory").restore(name)
    flip(path, 128 + slot * 2 * memory.dim)
    flip(path, 128 + int(memory.slots[10]) * 2 * memory.dim)  # nothing was written there
    MemoryBank.open(tmp_path / "memory").restore(name)


def test_a_memory_without_checksums_opens_still(tmp_path):
    memory = bank(tmp_path)
    memory.write(np.arange(9), plain=vectors(9))
    (tmp_path / "memory" / "sums.npy").unlink()
    old = MemoryBank.open(tmp_path / "memory")
    name = old.checkpoint()
    old.write(np.arange(3), plain=vectors(9)[6:])
    old.restore(name)
    np.testing.assert_array_equal(
        old.read(np.arange(9), "plain"), memory.read(np.arange(9), "plain")
    )
    (tmp_path / "memory" / "sums.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"sums\.npy: damaged"):
        MemoryBank.open(tmp_path / "memory")
