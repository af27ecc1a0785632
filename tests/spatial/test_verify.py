"""The verifier: symmetric, cached, resumable, the same with any number of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.spatial.scenes import scene, warped

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.spatial import store, verify, work
from resight.spatial.local import LocalFeatures, SpatialOptions, local_features
from resight.spatial.match import count_inliers
from resight.spatial.verify import Verifier

OPTIONS = SpatialOptions(points=300)
ALL = np.array([(i, j) for i in range(8) for j in range(i)])


def image_set(root: Path, names: list[str], **more: list[object]) -> ImageSet:
    return ImageSet(normalise(pl.DataFrame({"path": names, **more})), root)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Three scenes, each seen twice; a blank picture, and a file that is none."""
    root = tmp_path_factory.mktemp("scenes")
    view = np.array([[0.9, 0.1, 5], [-0.1, 0.9, 20], [1e-4, 0, 1]])
    for number in range(3):
        scene(number, 256).save(root / f"{number}a.png")
        warped(scene(number, 256), view).save(root / f"{number}b.png")
    scene(0, 256).point(lambda value: 77).save(root / "blank.png")
    (root / "broken.jpg").write_bytes(b"no picture")
    names = ["0a.png", "1a.png", "2a.png", "0b.png", "1b.png", "2b.png", "blank.png", "broken.jpg"]
    return image_set(root, names)


@pytest.fixture(scope="module")
def expected(images: ImageSet) -> np.ndarray:
    """The counts of `ALL`, one by one, without the verifier."""
    from PIL import Image

    good = [Image.open(path).convert("RGB") for path in images.full_paths()[:7]]
    found: list[LocalFeatures | None] = [local_features(image, OPTIONS) for image in good]
    found.append(None)
    counts = []
    for i, j in ALL:
        a, b = found[min(i, j)], found[max(i, j)]
        counts.append(0 if a is None or b is None else count_inliers(a, b, OPTIONS))
    return np.array(counts)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pictures a piece, five pairs a block, two a task."""
    for name, size in (("_PIECE", 3), ("_PAIRS", 5), ("_READING", 2), ("_COMPARING", 2)):
        monkeypatch.setattr(verify, name, size)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many pictures are decoded, and pairs compared, in this process."""
    calls = {"decode": 0, "compare": 0}

    def counting(name: str, real):
        def call(*args, **options):
            calls[name] += 1
            return real(*args, **options)

        return call

    monkeypatch.setattr(work, "decode", counting("decode", work.decode))
    monkeypatch.setattr(work, "count_inliers", counting("compare", work.count_inliers))
    return calls


def test_counts_are_those_of_one_pair_at_a_time(images, expected, counted):
    verifier = Verifier(images, OPTIONS, workers=0)
    assert verifier.todo(ALL) == (8, 28)
    found = verifier.inliers(ALL)
    assert found.dtype == np.int16 and np.array_equal(found, expected)
    together = {(3, 0), (4, 1), (5, 2)}
    for (i, j), count in zip(ALL.tolist(), found, strict=True):
        assert (count >= OPTIONS.min_inliers) == ((i, j) in together)
    assert [(Path(bad.path).name, bad.reason) for bad in verifier.bad] == [
        ("broken.jpg", "not an image of a known format")
    ]
    assert counted == {"decode": 8, "compare": 28} and verifier.todo(ALL) == (0, 0)
    assert (verifier.spent.images, verifier.spent.pairs) == (8, 28)


def test_both_ways_and_twice_is_one_comparison(images, expected, counted):
    verifier = Verifier(images, OPTIONS, workers=0)
    asked = np.concatenate([ALL[:4], ALL[:4, ::-1], ALL[:4]])
    assert verifier.inliers(asked).tolist() == expected[:4].tolist() * 3
    assert counted["compare"] == 4


def test_only_what_is_asked_for_is_read(images, counted):
    verifier = Verifier(images, OPTIONS, workers=0)
    assert verifier.inliers(np.zeros((0, 2), int)).tolist() == []
    assert counted["decode"] == 0 and verifier.bad == []
    verifier.inliers(np.array([[2, 5]]))
    assert counted["decode"] == 2
    verifier.inliers(np.array([[5, 0]]))
    assert counted["decode"] == 3
    assert len(verifier.features(5)) > 0 and len(verifier.features(7)) == 0
    assert counted["decode"] == 4
    assert np.array_equal(
        verifier.features(0).points, local_features(scene(0, 256), OPTIONS).points
    )


def test_the_second_call_reads_nothing(images, expected, counted, small_pieces, tmp_path):
    seen: list[tuple[int, int]] = []
    first = Verifier(images, OPTIONS, tmp_path, workers=0)
    found = first.inliers(ALL, progress=lambda done, total: seen.append((done, total)))
    assert np.array_equal(found, expected)
    assert seen == [(done, 28) for done in (0, 5, 10, 15, 20, 25, 28)]
    counted.update(decode=0, compare=0)
    again = Verifier(images, OPTIONS, tmp_path, workers=0)
    assert np.array_equal(again.inliers(ALL[::-1]), expected[::-1])
    assert counted == {"decode": 0, "compare": 0} and again.spent.pairs == 0
    assert [bad.path for bad in again.bad] == [bad.path for bad in first.bad]
    # Other labels and another ratio: the same features; another number of points: other ones.
    labelled = image_set(images.root, images.table["path"].to_list(), object=list("abcabcde"))
    assert Verifier(labelled, OPTIONS, tmp_path, workers=0).todo(ALL) == (0, 0)
    other = OPTIONS.model_copy(update={"ratio": 0.7})
    assert Verifier(images, other, tmp_path, workers=0).todo(ALL) == (0, 28)
    other = OPTIONS.model_copy(update={"points": 299})
    assert Verifier(images, other, tmp_path, workers=0).todo(ALL) == (8, 28)


@pytest.mark.parametrize("stop", [("decode", 0), ("decode", 4), ("compare", 2), ("compare", 13)])
def test_interrupted_is_uninterrupted(
    images, expected, counted, small_pieces, tmp_path, monkeypatch, stop
):
    name, after = stop
    attribute = "decode" if name == "decode" else "count_inliers"
    real = getattr(work, attribute)

    def stopping(*args, **options):
        if counted[name] >= after:
            raise KeyboardInterrupt
        return real(*args, **options)

    stopped = Verifier(images, OPTIONS, tmp_path, workers=0)
    with monkeypatch.context() as patch:
        patch.setattr(work, attribute, stopping)
        with pytest.raises(KeyboardInterrupt):
            stopped.inliers(ALL)
    before = dict(counted)
    fresh = Verifier(images, OPTIONS, tmp_path, workers=0)
    left = fresh.todo(ALL)
    assert left == stopped.todo(ALL)
    assert np.array_equal(fresh.inliers(ALL), expected)
    assert (counted["decode"] - before["decode"], counted["compare"] - before["compare"]) == left
    # No more is done again than a piece that was not written.
    assert left[0] == 8 - before["decode"] // 3 * 3 or name == "compare"
    assert left[1] == 28 - before["compare"] // 5 * 5


_CHILD = """
import sys, time
import polars as pl
from pathlib import Path
from resight.data.imageset import ImageSet
from resight.spatial import verify
from resight.spatial.local import SpatialOptions

root, table, cache = sys.argv[1:]
verify._PIECE, verify._PAIRS = 3, 5
images = ImageSet(pl.read_parquet(table), Path(root))
verifier = verify.Verifier(images, SpatialOptions(points=300), Path(cache), workers=0)
pairs = [(i, j) for i in range(8) for j in range(i)]
slow = lambda done, total: time.sleep(60 if done >= 10 else 0)
verifier.inliers(pairs, progress=slow)
"""


def test_killed_and_started_again(images, expected, counted, small_pieces, tmp_path):
    table, cache = tmp_path / "images.parquet", tmp_path / "cache"
    images.table.write_parquet(table)
    child = subprocess.Popen([sys.executable, "-c", _CHILD, images.root, table, cache])
    end = time.monotonic() + 120
    while len(list(cache.glob("counts-*/*.npy"))) < 2 and time.monotonic() < end:
        assert child.poll() is None, "the child ended by itself"
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    verifier = Verifier(images, OPTIONS, cache, workers=0)
    assert verifier.todo(ALL) == (0, 18)
    assert np.array_equal(verifier.inliers(ALL), expected)
    assert counted == {"decode": 0, "compare": 18}


def test_as_many_processes_as_one_likes(images, expected, monkeypatch, small_pieces, tmp_path):
    monkeypatch.setattr(verify, "_FEW", (0, 0))
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    verifier = Verifier(images, OPTIONS, tmp_path, workers=2)
    assert np.array_equal(verifier.inliers(ALL), expected)
    assert os.environ.get("OPENBLAS_NUM_THREADS") == before
    assert len(verifier.bad) == 1


def test_many_pieces_of_counts_become_one(images, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_PIECES", 4)
    for i, j in ALL[:7]:
        Verifier(images, OPTIONS, tmp_path, workers=0).inliers(np.array([[i, j]]))
    assert len(list(tmp_path.glob("counts-*/*.npy"))) <= 5
    verifier = Verifier(images, OPTIONS, tmp_path, workers=0)
    assert verifier.todo(ALL) == (len(set(ALL[7:].ravel()) - set(ALL[:7].ravel())), 21)
    assert np.array_equal(verifier.inliers(ALL), expected)


def test_boxes_are_cut_out(images):
    names = ["2a.png", "2a.png"]
    boxed = image_set(images.root, names, box=[[0.0, 0, 120, 256], [136.0, 0, 256, 256]])
    whole = image_set(images.root, ["2a.png", "2b.png"])
    assert Verifier(boxed, OPTIONS, workers=0).inliers(np.array([[0, 1]]))[0] < 8
    assert Verifier(whole, OPTIONS, workers=0).inliers(np.array([[0, 1]]))[0] > 50


def test_no_picture_has_a_keypoint(tmp_path):
    scene(0, 256).point(lambda value: 9).save(tmp_path / "a.png")
    images = image_set(tmp_path, ["a.png", "gone.png"])
    verifier = Verifier(images, OPTIONS, tmp_path / "cache", workers=0)
    assert verifier.inliers(np.array([[0, 1]])).tolist() == [0]
    assert [bad.reason for bad in verifier.bad] == ["no such file"]


def test_wrong_rows(images):
    verifier = Verifier(images, OPTIONS, workers=0)
    for pairs in ([[0, 8]], [[-1, 2]]):
        with pytest.raises(ValueError, match="of 8"):
            verifier.inliers(np.array(pairs))
    with pytest.raises(ValueError, match="itself"):
        verifier.inliers(np.array([[0, 1], [3, 3]]))


@pytest.mark.parametrize("kind", ["*.pictures.npy", "*.points.npy", "*/counts"])
def test_damage_is_one_clear_line(images, tmp_path, kind):
    Verifier(images, OPTIONS, tmp_path, workers=0).inliers(ALL[:3])
    pattern = "counts-*/*.npy" if kind == "*/counts" else f"features-*/{kind}"
    (path,) = tmp_path.glob(pattern)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"damaged .* delete the folder"):
        Verifier(images, OPTIONS, tmp_path, workers=0).inliers(ALL[:6])


def test_missing_weights_are_told_before_anything_is_read(images, tmp_path):
    options = SpatialOptions(detector="aliked", weights=str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"none\.pth: no such file"):
        Verifier(images, options, workers=0)
