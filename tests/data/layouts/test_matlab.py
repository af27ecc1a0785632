"""MATLAB 5 files: what is read, and files that are broken or hostile."""

from __future__ import annotations

import contextlib
import struct
import zlib

import numpy as np
import pytest
from tests.matfiles import save_mat

from resight.data.layouts.matlab import read_mat
from resight.errors import UserError

VALUES = {
    "names": ["a/1.jpg", "b/2.jpg", ""],
    "text": "Ærø",
    "small": np.array([[7]], np.uint16),
    "table": np.array([[1.5, 2.5], [3.5, 4.5]]),
    "entries": [
        {"ok": np.array([[1, 2, 3]], np.uint16), "bbx": np.array([[1.0, 2.0, 3.0, 4.0]])},
        {"ok": np.zeros((0, 0), np.uint16), "bbx": np.array([[5.0, 6.0, 7.0, 8.0]])},
    ],
}


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_read(tmp_path, packed):
    found = read_mat(save_mat(tmp_path / "x.mat", packed=packed, **VALUES))
    assert list(found) == list(VALUES)
    assert found["names"] == VALUES["names"] and found["text"] == VALUES["text"]
    assert found["small"].tolist() == [[7]]
    assert found["table"].tolist() == [[1.5, 2.5], [3.5, 4.5]]
    first, second = found["entries"]
    assert first["ok"].tolist() == [[1, 2, 3]] and first["bbx"].tolist() == [[1, 2, 3, 4]]
    assert second["ok"].size == 0


def test_other_files(tmp_path):
    path = tmp_path / "x.mat"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.mat: not a MATLAB 5 file"):
        read_mat(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(600))
    with pytest.raises(UserError, match=r"a MATLAB 7\.3 file; save it as"):
        read_mat(path)


@pytest.mark.parametrize("packed", [False, True])
def test_cut_off_anywhere(tmp_path, packed):
    whole = save_mat(tmp_path / "x.mat", packed=packed, **VALUES).read_bytes()
    for length in range(129, len(whole), 7):
        (tmp_path / "x.mat").write_bytes(whole[:length])
        with contextlib.suppress(UserError):
            assert set(read_mat(tmp_path / "x.mat")) < set(VALUES)


def test_any_byte_wrong(tmp_path):
    whole = save_mat(tmp_path / "x.mat", **VALUES).read_bytes()
    for at in range(128, len(whole)):
        (tmp_path / "x.mat").write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        with contextlib.suppress(UserError):
            read_mat(tmp_path / "x.mat")


def test_sizes_are_not_trusted(tmp_path):
    """A cell array that says it has 2**31 - 1 entries and has none."""
    inner = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 2**31 - 1)
    inner += struct.pack("<HH4s", 1, 1, b"x")
    data = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    data += struct.pack("<II", 14, len(inner)) + inner
    (tmp_path / "x.mat").write_bytes(data)
    with pytest.raises(UserError, match="2147483647 entries in 40 bytes"):
        read_mat(tmp_path / "x.mat")


def test_nested_too_deeply(tmp_path):
    head = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1)
    head += struct.pack("<II", 1, 0)
    data = b""
    for _ in range(20_000):
        data = head + data
        data = struct.pack("<II", 14, len(data) & 0xFFFF_FFFF) + data
    squeezed = zlib.compress(data)
    file = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "x.mat").write_bytes(file + struct.pack("<II", 15, len(squeezed)) + squeezed)
    with pytest.raises(UserError, match="a broken MATLAB file"):
        read_mat(tmp_path / "x.mat")
