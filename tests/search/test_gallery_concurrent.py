"""One gallery, several processes and threads: readers see what was acknowledged, writers wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_sets import crowd, features_of

from resight.errors import UserError
from resight.search import views
from resight.search.check import FAULT, check
from resight.search.gallery import Gallery

BEGIN = """
import sys
import numpy as np
from gallery_sets import crowd, features_of
from resight.search import views
from resight.search.gallery import Gallery
gallery = Gallery.open(sys.argv[1])
vectors, names = crowd(400, 8)
def said(text):
    print(text, flush=True)
"""


@contextmanager
def other(folder: Path, code: str) -> Iterator[Any]:
    """Another process with the gallery; it must end well, unless it was killed."""
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
    )
    try:
        yield process
        if process.returncode is None:
            process.communicate(timeout=120)
            assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vectors, names = crowd(400, 8)
    with Gallery.create(tmp_path / "g") as gallery:
        gallery.add(features_of(vectors[:200], names[:200]))
    return tmp_path / "g"


def test_a_reader_sees_each_change_as_soon_as_it_is_acknowledged(folder: Path) -> None:
    code = """
for n in range(200, 240):
    gallery.add(features_of(vectors[n:n + 1], ["new"], n))
    said(f"added {n}")
    sys.stdin.readline()
    gallery.move([f"/g/{n}.png"], f"moved {n}")
    said(f"moved {n}")
    sys.stdin.readline()
    gallery.remove([f"/g/{n}.png"])
    said(f"removed {n}")
    sys.stdin.readline()
"""
    vectors, _ = crowd(400, 8)
    with Gallery.open(folder) as gallery, other(folder, code) as writer:
        before = {level: len(gallery.views.get(level)) for level in ("image", "object")}
        for n in range(200, 240):
            for word, name in (("added", "new"), ("moved", f"moved {n}"), ("removed", None)):
                assert writer.stdout.readline() == f"{word} {n}\n"
                query = vectors[n : n + 1]
                for level in ("image", "object", "both"):
                    (hits,) = gallery.search_vectors(query, 2, level=level)
                    first = hits[0]
                    if name is not None:
                        assert (first.path, first.object) == (f"/g/{n}.png", name)
                        assert first.similarity > 0.99999
                    else:
                        assert first.path != f"/g/{n}.png" and first.similarity < 0.99999
                writer.stdin.write("\n")
                writer.stdin.flush()
        assert before == {level: len(gallery.views.get(level)) for level in before}


HOLDING = """
with gallery.engine.writing("adding photos") as writer:
    said("holds")
    sys.stdin.readline()
"""


def test_a_second_writer_waits_and_says_for_whom(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gallery = Gallery.open(folder)
    with other(folder, HOLDING) as holder:
        assert holder.stdout.readline() == "holds\n"
        assert len(gallery.search_vectors(np.ones((1, 8), np.float32))[0]) == 10  # readers go on
        gallery.engine.turns._wait = 0.2  # type: ignore[attr-defined]
        who = rf"process {holder.pid} \(adding photos\) is writing; waited 0 s, try again"
        with pytest.raises(UserError, match=who):
            gallery.remove([1])
        gallery.engine.turns._wait = 60  # type: ignore[attr-defined]
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(gallery.remove([1])))
        thread.start()
        thread.join(1.5)
        assert not done
        assert f"waiting for process {holder.pid} (adding photos)" in capfd.readouterr().err
        holder.stdin.write("\n")
        holder.stdin.flush()
        thread.join(60)
        assert done == [1]


def test_who_dies_while_writing_leaves_the_turn_and_nothing_else(folder: Path) -> None:
    code = HOLDING.replace("said(", "writer.delete([1, 2, 3]); said(")
    with Gallery.open(folder) as gallery, other(folder, code) as holder:
        assert holder.stdout.readline() == "holds\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert gallery.remove([5]) == 1
        assert gallery.engine.counts()[0] == 199
        assert not [one for one in check(gallery) if one.kind == FAULT]


def test_two_writers_at_once(folder: Path) -> None:
    code = """
said("ready")
sys.stdin.readline()
for n in range(200, 300):
    gallery.add(features_of(vectors[n:n + 1], names[n:n + 1], n))
"""
    vectors, names = crowd(400, 8)
    with Gallery.open(folder) as gallery, other(folder, code) as writer:
        assert writer.stdout.readline() == "ready\n"
        writer.stdin.write("\n")
        writer.stdin.flush()
        for n in range(300, 400):
            gallery.add(features_of(vectors[n : n + 1], names[n : n + 1], n))
        writer.communicate(timeout=120)
        assert gallery.engine.counts()[0] == 400
        assert not [one for one in check(gallery) if one.kind == FAULT]
        found = gallery.search_vectors(vectors, 1, level="image")
        assert [hits[0].path for hits in found] == [f"/g/{n}.png" for n in range(400)]


def test_readers_go_on_while_one_compacts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
views.LEAST = 20  # the index is kept, and built anew
said("ready")
for turn in range(15):
    gallery.compact()
    said("compacted")
"""
    monkeypatch.setattr(views, "LEAST", 20)
    queries = crowd(400, 8)[0][200:210]
    with Gallery.open(folder) as gallery, other(folder, code) as writer:
        wanted = gallery.search_vectors(queries)
        assert writer.stdout.readline() == "ready\n"
        rounds = 0
        while writer.poll() is None:
            assert gallery.search_vectors(queries) == wanted
            with Gallery.open(folder) as another:
                assert another.search_vectors(queries) == wanted
            rounds += 1
        assert rounds > 0 and writer.returncode == 0
        assert not [one for one in check(gallery) if one.kind == FAULT]


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_many_threads_search_while_one_adds(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "LEAST", 60)
    vectors, names = crowd(600, 8)
    gallery = Gallery() if where == "memory" else Gallery.create(tmp_path / "g")
    gallery.add(features_of(vectors[:100], names[:100]))
    acknowledged, over, wrong = [100], threading.Event(), []

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while not over.is_set():
                some = rng.integers(0, acknowledged[0], 5)
                level = ("image", "object", "both")[rng.integers(3)]
                found = gallery.search_vectors(vectors[some], 3, level=level)
                for n, hits in zip(some.tolist(), found, strict=True):
                    if level == "image" and hits[0].path != f"/g/{n}.png":
                        wrong.append(f"{n}: {hits[0]}")
                    if len(hits) != 3:
                        wrong.append(f"{n}: {len(hits)} hits")
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    try:
        for start in range(100, 600, 20):
            gallery.add(features_of(vectors[start : start + 20], names[start : start + 20], start))
            acknowledged[0] = start + 20
            gallery.move([f"/g/{start}.png"], "moved")
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert not wrong, wrong[:3]
    assert gallery.engine.counts()[0] == 600
    assert not [str(one) for one in check(gallery) if one.kind == FAULT]
