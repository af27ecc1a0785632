"""Files are whole or absent, folders of others are never deleted."""

from __future__ import annotations

import errno
import json
import os
import stat

import pytest

from resight import files
from resight.errors import UserError, explain_os_error


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["a.bin", "ä 漢.bin", "漢" * 83 + ".json", ".hidden"])
def test_write_and_replace(tmp_path, name):
    path = tmp_path / "deep" / "er" / name
    for content in (b"first", b"", b"second\0"):
        files.write_bytes(path, content)
        assert path.read_bytes() == content
        assert names(path.parent) == [name]


def test_text_and_json_come_back(tmp_path):
    content = {"ä": [1, 2.5, None, "漢"]}
    files.write_json(tmp_path / "a.json", content)
    assert files.read_json(tmp_path / "a.json", "a test") == content
    assert "漢" in (tmp_path / "a.json").read_text("utf-8")
    files.write_text(tmp_path / "a.txt", "ü\n")
    assert (tmp_path / "a.txt").read_bytes() == "ü\n".encode()


def test_the_mode_is_that_of_an_ordinary_file(tmp_path):
    old = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "a", b"x")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027  # looking at it left it as it was
    finally:
        os.umask(old)


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, old, error):
    path = tmp_path / "a.bin"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(error), files.atomic_open(path) as file:
        file.write(b"half")
        assert len(names(tmp_path)) == 1 + (old is not None)
        raise error("stop")
    assert names(tmp_path) == ([] if old is None else ["a.bin"])
    assert old is None or path.read_bytes() == old


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_full_disk_at_the_end(tmp_path, monkeypatch, call):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError) as error:
        files.write_bytes(path, b"new")
    assert names(tmp_path) == ["a.bin"] and path.read_bytes() == b"old"
    assert explain_os_error(error.value).startswith(f"{path}: no space left on the disk")


def test_a_full_disk_in_the_middle(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OSError) as error, files.atomic_open(path) as file:
        file.write(b"some")
        full()
    assert names(tmp_path) == ["a.bin"] and path.read_bytes() == b"old"
    assert explain_os_error(error.value).startswith(f"{path}: no space left on the disk")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_write_that_really_fails_is_explained():
    with pytest.raises(OSError) as error, open("/dev/full", "wb") as file:
        file.write(b"x")
    error.value.filename = "/dev/full"
    assert explain_os_error(error.value).startswith("/dev/full: no space left on the disk")


def test_read_json_says_what_was_expected(tmp_path):
    with pytest.raises(UserError, match="not found; the index was expected here"):
        files.read_json(tmp_path / "a.json", "the index")
    for content in (b"{", b"", b"\xff\xfe", b"{'a': 1}"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UserError, match=r"not valid JSON .*; the index was expected here"):
            files.read_json(tmp_path / "a.json", "the index")


def test_fresh_folder_takes_absent_and_empty_folders(tmp_path):
    files.fresh_folder(tmp_path / "absent", "a run", mark="run.json")
    (tmp_path / "empty").mkdir()
    files.fresh_folder(tmp_path / "empty", "a run", mark="run.json")
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("force", [False, True])
def test_fresh_folder_never_touches_what_is_not_ours(tmp_path, force):
    folder, file = tmp_path / "photos", tmp_path / "file"
    (folder / "run.json").mkdir(parents=True)  # a folder of that name is no mark
    (folder / "a.jpg").write_bytes(b"x")
    file.write_bytes(b"y")
    with pytest.raises(UserError, match="holds other files"):
        files.fresh_folder(folder, "a run", mark="run.json", force=force)
    with pytest.raises(UserError, match="is a file; a run needs a folder"):
        files.fresh_folder(file, "a run", mark="run.json", force=force)
    assert names(folder) == ["a.jpg", "run.json"] and file.read_bytes() == b"y"


def test_fresh_folder_replaces_its_own_only_when_forced(tmp_path):
    folder = tmp_path / "run"
    files.write_json(folder / "run.json", {})
    (folder / "more").mkdir()
    with pytest.raises(UserError, match="already holds a run; give another --out, or --force"):
        files.fresh_folder(folder, "a run", mark="run.json")
    assert json.loads((folder / "run.json").read_text()) == {}
    files.fresh_folder(folder, "a run", mark="run.json", force=True)
    assert not folder.exists()
