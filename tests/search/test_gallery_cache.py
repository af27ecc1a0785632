"""The index on disk: lost, damaged, of something else, behind, or impossible to keep."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_sets import crowd, features_of

from resight.search import cache, views
from resight.search.check import FAULT, check
from resight.search.gallery import Gallery


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Indexes are kept, and made anew, after a few changes."""
    monkeypatch.setattr(views, "LEAST", 50)
    yield


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def of_other(folder: Path) -> None:
    """The index of another gallery."""
    vectors, names = crowd(600, 8, seed=8)
    with Gallery.create(folder.parent / "other").add(features_of(vectors, names)) as other:
        len(other)
    shutil.rmtree(folder / "index")
    shutil.copytree(folder.parent / "other" / "index", folder / "index")


def record(folder: Path, **values: Any) -> None:
    path = folder / "index" / "image.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def part(folder: Path, ending: str) -> Path:
    (found,) = (folder / "index").glob(f"image-*{ending}")
    return found


HARM = {
    "deleted": lambda g: shutil.rmtree(g / "index"),
    "a part deleted": lambda g: part(g, "[0-9].faiss").unlink(),
    "cut": lambda g: os.truncate(part(g, "[0-9].faiss"), 1000),
    "empty": lambda g: part(g, ".npz").write_bytes(b""),
    "flipped": lambda g: flip(part(g, "[0-9].faiss"), 5000),
    "keys flipped": lambda g: flip(part(g, ".npz"), 900),
    "no JSON": lambda g: (g / "index" / "image.json").write_text("{"),
    "another JSON": lambda g: (g / "index" / "image.json").write_text("[1]"),
    "of another gallery": of_other,
    "of another generation": lambda g: record(g, of={"gallery": "?", "generation": 7}),
    "of a version to come": lambda g: record(g, version=10**6),
}


@pytest.mark.parametrize("harm", [*HARM])
def test_a_damaged_or_strange_index_is_made_again(tmp_path: Path, small: None, harm: str) -> None:
    vectors, names = crowd(600, 8)
    folder = tmp_path / "g"
    with Gallery.create(folder).add(features_of(vectors, names)) as gallery:
        before = gallery.search_vectors(vectors[:20])
        assert cache.load(folder, "image", gallery.views._of(gallery.engine.meta())) is not None
    HARM[harm](folder)
    with Gallery.open(folder) as gallery:
        assert gallery.search_vectors(vectors[:20]) == before
        assert not [one for one in check(gallery) if one.kind == FAULT]
    with Gallery.open(folder) as gallery:
        assert cache.load(folder, "image", gallery.views._of(gallery.engine.meta())) is not None


def test_an_index_left_behind_by_changes_catches_up(tmp_path: Path, small: None) -> None:
    vectors, names = crowd(600, 8)
    with Gallery.create(tmp_path / "g").add(features_of(vectors[:500], names[:500])) as gallery:
        len(gallery)  # kept at this version
        gallery.add(features_of(vectors[500:530], names[500:530], 500))
        gallery.remove(["/g/3.png", "/g/510.png"])
        gallery.move(["/g/4.png"], "another")
        wanted = gallery.search_vectors(vectors[:40])
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.views.get("image").changed > 0
        assert gallery.search_vectors(vectors[:40]) == wanted
        assert not [one for one in check(gallery) if one.kind == FAULT]
        gallery.compact()
        assert gallery.views.get("image").changed == 0
        assert gallery.search_vectors(vectors[:40]) == wanted


def test_an_index_over_many_changes_is_what_a_new_one_would_be(tmp_path: Path, small: None) -> None:
    """Bit for bit: what was unit is not made unit again."""
    vectors, names = crowd(900, 48)
    with Gallery.create(tmp_path / "g") as gallery:
        for start in range(0, 900, 150):
            gallery.add(
                features_of(vectors[start : start + 150], names[start : start + 150], start)
            )
            for level in ("image", "object"):
                live, new = gallery.views.get(level), gallery.views.whole(level)
                for a, b in zip(live.everything(), new.everything(), strict=True):
                    assert np.array_equal(a, b)
        assert not [one for one in check(gallery) if one.kind == FAULT]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize("how", ["full", "ro"])
def test_where_no_index_can_be_kept_search_works(tmp_path: Path, small: None, how: str) -> None:
    place = tmp_path / "g" / "index"
    vectors, names = crowd(2000, 64)
    gallery = Gallery.create(tmp_path / "g")
    place.mkdir()
    size = "size=200k" if how == "full" else "ro"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", place]).returncode:
        pytest.skip("mounts are not permitted here")
    heard: list[str] = []
    try:
        with gallery.add(features_of(vectors, names)):
            gallery.views._tell = heard.append
            found = gallery.search_vectors(vectors[:10])
            assert [hits[0].object for hits in found] == names[:10]
            assert "the index was not kept" in heard[0] and "\n" not in heard[0]
            assert not [*place.iterdir()]  # no half of it takes the room that is left
            assert not [one for one in check(gallery) if one.kind == FAULT]
        with Gallery.open(tmp_path / "g") as again:
            assert again.search_vectors(vectors[:10]) == found
    finally:
        subprocess.run(["umount", place], check=True)


def test_an_index_is_dropped_name_first(tmp_path: Path, small: None) -> None:
    """Killed in between, a record of files that are gone would be called damage."""
    vectors, names = crowd(600, 8)
    gone: list[str] = []
    with Gallery.create(tmp_path / "g").add(features_of(vectors, names)) as gallery:
        for level in ("image", "object"):
            gallery.views.get(level)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "unlink", lambda self, missing_ok=False: gone.append(self.suffix))
            cache.drop(tmp_path / "g")
    assert gone and gone == sorted(gone, key=lambda suffix: suffix != ".json")
