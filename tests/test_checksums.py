"""Checksums: any change is seen, and what has no sum is left alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.damage import flip

from resight.checksums import Summed, differing, file_sum, sums_in, verify
from resight.errors import UserError


@given(parts=st.lists(st.binary(max_size=50), max_size=5))
def test_the_sum_of_what_is_written_is_that_of_the_file(parts, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "written"
    with open(path, "wb") as file:
        summed = Summed(file)
        for part in parts:
            assert summed.write(part) == len(part)
    assert summed.sum() == file_sum(path) == hashlib.sha256(b"".join(parts)).hexdigest()


def test_numpy_writes_through_it(tmp_path):
    array = np.arange(300_000, dtype=np.float32).reshape(-1, 3)
    with open(tmp_path / "a.npy", "wb") as file:
        summed = Summed(file)
        np.save(summed, array, allow_pickle=False)
    assert summed.sum() == file_sum(tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)


def test_every_flipped_byte_is_seen(tmp_path):
    path = tmp_path / "a"
    for at in range(20):
        path.write_bytes(bytes(range(20)))
        sums = {"a": file_sum(path)}
        verify(tmp_path, sums, "make it again")
        flip(path, at)
        assert differing(tmp_path, sums) == ["a"]


def test_the_first_is_named_with_what_to_do(tmp_path):
    sums = {}
    for name in "abcd":
        (tmp_path / name).write_text(name)
        sums[name] = file_sum(tmp_path / name)
    assert differing(tmp_path, sums) == []
    flip(tmp_path / "b", 0)
    (tmp_path / "d").unlink()
    assert differing(tmp_path, sums) == ["b", "d"]
    with pytest.raises(UserError, match=r"/b: damaged, .*\(and 1 more\); make it again"):
        verify(tmp_path, sums, "make it again")
    verify(tmp_path, {}, "never said")


def test_sums_of_a_record():
    record = {"sums": {"a": "1", "b": "2"}}
    assert sums_in(record) == {"a": "1", "b": "2"} and sums_in(record, ["b", "c"]) == {"b": "2"}
    assert sums_in({}) == sums_in({}, ["a"]) == {}
