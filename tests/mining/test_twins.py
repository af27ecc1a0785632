"""Near-duplicates found through the pool: rendered pictures saved again, and groups of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.pictures import encoded, picture

from resight.data.imageset import ImageSet, normalise
from resight.graph.pool import Pool, build_pool
from resight.mining.twins import representatives, tell_twins, twins


def image_set(folder: Path, names: list[str]) -> ImageSet:
    return ImageSet(normalise(pl.DataFrame({"path": names})), folder)


def grey(folder: Path, names: list[str]) -> np.ndarray:
    """A stand-in for an embedder: the picture at 16 x 16."""
    vectors = []
    for name in names:
        small = Image.open(folder / name).convert("RGB").resize((16, 16))
        pixels = np.asarray(small, np.float32).ravel()
        vectors.append(pixels - pixels.mean())
    return np.stack(vectors)


@pytest.fixture(params=[(160, 120), (24, 20), (8, 6)], ids=["usual", "small", "tiny"])
def folder(request, tmp_path: Path) -> tuple[Path, list[str]]:
    """Ten pictures; three of them again: at another quality, format, size."""
    names = []
    for number in range(10):
        picture(number, request.param).save(tmp_path / f"{number}.png")
        names.append(f"{number}.png")
    size = request.param
    (tmp_path / "2-again.jpg").write_bytes(encoded(picture(2, size), "JPEG", quality=90))
    (tmp_path / "2-copy.png").write_bytes((tmp_path / "2.png").read_bytes())
    half = picture(7, size).resize((size[0] * 3 // 2, size[1] * 3 // 2), Image.Resampling.BICUBIC)
    half.save(tmp_path / "7-larger.png")
    return tmp_path, ["2-copy.png", *names, "2-again.jpg", "7-larger.png"]


def test_pictures_saved_again(folder):
    where, names = folder
    images = image_set(where, names)
    seen = []
    pool = build_pool(grey(where, names), k=12)
    pairs = twins(pool, images, 0.97, progress=lambda done, total: seen.append((done, total)))
    named = {frozenset((names[a], names[b])) for a, b in pairs.tolist()}
    assert frozenset(("2.png", "2-copy.png")) in named
    if Image.open(where / "2.png").width > 8:  # beyond that, interpolation makes another picture
        assert frozenset(("7.png", "7-larger.png")) in named
    assert pairs.dtype == np.int64 and (pairs[:, 0] < pairs[:, 1]).all()
    assert named <= {
        frozenset(p)
        for p in [
            ("2.png", "2-copy.png"),
            ("2.png", "2-again.jpg"),
            ("2-copy.png", "2-again.jpg"),
            ("7.png", "7-larger.png"),
        ]
    }
    assert seen[-1][0] == seen[-1][1] <= 5
    if len(pairs) == 4:
        line = tell_twins(pairs, images)
        assert line == (
            "3 images are near-duplicates of another (2 groups): "
            "2-copy.png = 2.png = 2-again.jpg, 7.png = 7-larger.png"
        )
    first = representatives(pairs, len(names))
    assert first[names.index("2.png")] == 0 and first[names.index("3.png")] == 4


def test_usual_pictures_are_all_found(tmp_path):
    """Every one of 30, saved again as JPEG of quality 70 at 2/3 of its size."""
    names = []
    for number in range(30):
        one = picture(number, (192, 144))
        one.save(tmp_path / f"{number:02d}.png")
        small = one.resize((128, 96), Image.Resampling.LANCZOS)
        small.save(tmp_path / f"{number:02d}-web.jpg", quality=70)
        names += [f"{number:02d}.png", f"{number:02d}-web.jpg"]
    images = image_set(tmp_path, names)
    pairs = twins(build_pool(grey(tmp_path, names), k=10), images)
    assert pairs.tolist() == [[2 * i, 2 * i + 1] for i in range(30)]
    few = twins(build_pool(grey(tmp_path, names), k=10), images, most=4)
    assert 0 < len(few) <= 4
    assert tell_twins(pairs, images).endswith("(30 groups): 00.png = 00-web.jpg, "
        "01.png = 01-web.jpg, 02.png = 02-web.jpg, ...")  # fmt: skip


def test_alike_to_the_embedder_only(tmp_path):
    """The pool proposes them; the pictures differ."""
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        picture(number).save(tmp_path / name)
    pool = build_pool(np.ones((6, 4), np.float32), k=5)
    pairs = twins(pool, image_set(tmp_path, names))
    assert pairs.shape == (0, 2)
    assert tell_twins(pairs, image_set(tmp_path, names)) == "no near-duplicates among the images"


def test_files_that_are_gone_broken_or_blank(tmp_path):
    picture(0).save(tmp_path / "a.png")
    picture(0).save(tmp_path / "b.png")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red too.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:90])
    names = ["gone.png", "broken.png", "b.png", "red.png", "red too.png", "a.png"]
    pool = build_pool(np.ones((6, 4), np.float32), k=5)
    images = image_set(tmp_path, names)
    pairs = twins(pool, images)
    assert pairs.tolist() == [[2, 5]]
    assert tell_twins(pairs, images) == (
        "1 image is a near-duplicate of another (1 group): b.png = a.png"
    )


def test_boxes_count(tmp_path):
    """Two boxes of one photo are other pictures; the same cut from a copy is not."""
    whole = Image.new("RGB", (200, 100))
    whole.paste(picture(1, (100, 100)), (0, 0))
    whole.paste(picture(2, (100, 100)), (100, 0))
    whole.save(tmp_path / "whole.png")
    picture(2, (100, 100)).save(tmp_path / "right.png")
    table = pl.DataFrame(
        {
            "path": ["whole.png", "whole.png", "right.png"],
            "box": [[0.0, 0, 100, 100], [100.0, 0, 200, 100], None],
        }
    )
    pool = build_pool(np.ones((3, 4), np.float32), k=2)
    assert twins(pool, ImageSet(normalise(table), tmp_path)).tolist() == [[1, 2]]


def test_a_pool_without_a_neighbour(tmp_path):
    picture(0).save(tmp_path / "a.png")
    pool = build_pool(np.ones((1, 4), np.float32))
    assert isinstance(pool, Pool)
    assert twins(pool, image_set(tmp_path, ["a.png"])).shape == (0, 2)


@given(st.data(), st.integers(1, 40))
def test_representatives_against_a_walk(data, n):
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), max_size=60))
    near = {row: {row} for row in range(n)}
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    first = representatives(np.array(pairs, np.int64).reshape(-1, 2), n)
    assert first.dtype == np.int32
    for row in range(n):
        group, todo = {row}, [row]
        while todo:
            fresh = near[todo.pop()] - group
            group |= fresh
            todo += fresh
        assert first[row] == min(group)


def test_a_long_chain():
    n = 20_000
    pairs = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    mixed = np.random.default_rng(0).permutation(n - 1)
    assert not representatives(pairs[mixed], n).any()
    assert not representatives(pairs[::-1, ::-1], n).any()
