"""The photos on which two embedders differ, and how far, against the whole matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.evaluate.asking import differing as module
from resight.evaluate.asking.differing import LOOKED_AT, differing
from resight.evaluate.asking.make import ask


def no_photos(n: int) -> ImageSet:
    """Rows whose files are not there: none is found to be a copy."""
    names = [f"{k}.png" for k in range(n)]
    return ImageSet(normalise(pl.DataFrame({"path": names})), Path("nowhere"), "rows")


def order(x: np.ndarray, counts: np.ndarray, row: int) -> list[int]:
    """All other rows that count, nearest first."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    s = unit @ unit[row]
    return [k for k in np.argsort(-s, kind="stable").tolist() if k != row and counts[k]]


def held_against_the_matrix(a: np.ndarray, b: np.ndarray, valid: np.ndarray, first=None) -> None:
    n = len(a)
    counts = valid & (np.arange(n) == (np.arange(n) if first is None else first))
    found = differing(a, b, no_photos(n), valid)
    assert found.photos == counts.sum() and found.copies == (valid & ~counts).sum()
    wanted = {}
    for row in np.flatnonzero(counts).tolist():
        by_a, by_b = order(a, counts, row), order(b, counts, row)
        if by_a[0] != by_b[0]:
            wanted[row] = (by_a[0], by_b[0], by_b.index(by_a[0]) + 1, by_a.index(by_b[0]) + 1)
    parts = (found.rows, found.a, found.b, *found.ranks.T)
    got = {int(row): tuple(map(int, rest)) for row, *rest in zip(*parts, strict=True)}
    assert got == wanted
    worth = [np.log2(two[2] * two[3]) for two in wanted.values()]
    assert np.allclose(found.useful(), worth)


@given(st.integers(4, 40), st.integers(0, 99))
def test_nearest_and_ranks(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a = random.normal(size=(n, 6))
    b = a[:, :4] + 0.5 * random.normal(size=(n, 4))
    valid = random.random(n) > 0.1
    valid[:3] = True
    held_against_the_matrix(a, b, valid)


def test_copies_neither_ask_nor_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 1 and 5 are copies of row 0, row 9 of row 3."""
    random = np.random.default_rng(0)
    pairs = np.array([[0, 1], [1, 5], [3, 9]])
    first = np.arange(20)
    first[[1, 5, 9]] = 0, 0, 3
    a = random.normal(size=(20, 5))
    a[[1, 5, 9]] = a[[0, 0, 3]] + 1e-3
    b = random.normal(size=(20, 5))
    monkeypatch.setattr(module, "twins", lambda *_, **__: pairs)
    held_against_the_matrix(a, b, np.ones(20, bool), first)


def test_far_down_is_one_beyond_what_is_looked_at() -> None:
    random = np.random.default_rng(1)
    n = 3 * LOOKED_AT
    a, b = random.normal(size=(n, 8)), random.normal(size=(n, 8))
    found = differing(a, b, no_photos(n), np.ones(n, bool))
    assert found.ranks.min() >= 2 and found.ranks.max() == LOOKED_AT + 1
    row = int(np.flatnonzero(found.ranks[:, 0] == LOOKED_AT + 1)[0])
    every = order(b, np.ones(n, bool), int(found.rows[row]))
    assert every.index(int(found.a[row])) >= LOOKED_AT


def test_only_two_photos_have_nothing_to_differ_about(tmp_path: Path) -> None:
    found = ask(np.eye(2), np.ones((2, 3)), tmp_path / "p.html", images=no_photos(2))
    assert found.page is None and found.photos == 2


def test_photos_that_cannot_be_shown_are_told(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    a, b = random.normal(size=(30, 4)), random.normal(size=(30, 4))
    a[7] = np.nan
    found = ask(a, b, tmp_path / "p.html", images=no_photos(30), pairs=10)
    assert found.photos == 29 and found.queries == 5
    with pytest.raises(UserError, match="features of 29 images"):
        ask(a[1:], b, tmp_path / "q.html", images=no_photos(30))
    with pytest.raises(UserError, match="images are missing"):
        ask(a, b, tmp_path / "q.html")
