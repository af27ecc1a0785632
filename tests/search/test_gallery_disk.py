"""A full disk: one clear line, nothing acknowledged is lost, and it goes on when there is room."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from gallery_sets import crowd, features_of

from resight.errors import UserError
from resight.search.check import FAULT, Finding, check
from resight.search.gallery import Gallery


def faults(gallery: Gallery) -> list[Finding]:
    return [found for found in check(gallery) if found.kind == FAULT]


def add_until_full(gallery: Gallery) -> tuple[int, str]:
    """How many images are acknowledged when the disk is full, and what was said."""
    vectors, names = crowd(100, 64)
    done = 0
    for turn in range(1000):
        try:
            gallery.add(features_of(vectors, names, 100 * turn))
        except UserError as error:
            return done, str(error)
        done += 100
    raise AssertionError("it never was full")


def goes_on(gallery: Gallery, done: int) -> None:
    vectors, names = crowd(100, 64)
    gallery.add(features_of(vectors, names, done))
    assert gallery.engine.counts()[0] == done + 100
    assert not faults(gallery)
    assert len(gallery.search_vectors(vectors[:2])[1]) > 0


def test_a_full_database_is_one_line(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "g")
    gallery.engine._writes.execute("PRAGMA max_page_count = 150")  # type: ignore[attr-defined]
    done, text = add_until_full(gallery)
    assert "no space left on the disk; nothing that was acknowledged is lost" in text
    assert done and gallery.engine.counts()[0] == done and not faults(gallery)
    gallery.engine._writes.execute("PRAGMA max_page_count = 15000")  # type: ignore[attr-defined]
    goes_on(gallery, done)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts need root")
def test_a_full_disk_is_one_line_and_adding_goes_on_with_more_room(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", place]).returncode:
        pytest.skip("mounts are not permitted here")
    try:
        gallery = Gallery.create(place / "g")
        done, text = add_until_full(gallery)
        assert "no space left on the disk; nothing that was acknowledged is lost" in text
        assert "\n" not in text and done
        assert gallery.engine.counts()[0] == done  # searched and looked through as before
        assert len(gallery.search_vectors(crowd(3, 64)[0])[0]) > 0 and not faults(gallery)
        gallery.close()
        with Gallery.open(place / "g") as gallery:  # also by a process that begins now
            assert gallery.engine.counts()[0] == done
            assert len(gallery.search_vectors(crowd(3, 64)[0])[0]) > 0
            with pytest.raises(UserError, match="no space left"):
                for turn in range(20):
                    gallery.add(features_of(*crowd(300, 64), 100_000 + 300 * turn))
            done = gallery.engine.counts()[0]
            subprocess.run(["mount", "-o", "remount,size=30m", place], check=True)
            vectors, names = crowd(100, 64)
            gallery.add(features_of(vectors, names, 500_000))
            assert gallery.engine.counts()[0] == done + 100 and not faults(gallery)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
