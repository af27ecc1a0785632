"""Batches: in order, the same for any number of workers, bad images left out and named."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch
from tests.pictures import encoded, picture, save

from resight.data.decode import BadImage, decode
from resight.data.imageset import ImageSet, normalise
from resight.data.loading import Batch, Pictures, default_workers, loader, strict_stop
from resight.data.transforms import Augment, Preprocess

SMALL = Preprocess(size=(24, 16))
BATCHES = [[(0, 1), (5, 2), (2, 3)], [(3, 4)], [(6, 7), (1, 5), (0, 6)], [(6, 0), (3, 1)]]
BAD = {3: "truncated", 6: "no such file"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Seven rows, row 3 truncated, row 6 missing, row 5 the box of row 0's file."""
    root = tmp_path_factory.mktemp("loading")
    for row in range(6):
        save(root / f"{row}.png", row, (60, 50))
    (root / "3.png").write_bytes((root / "3.png").read_bytes()[:-200])
    names = ["0.png", "1.png", "2.png", "3.png", "4.png", "0.png", "gone.png"]
    boxes = [None] * 5 + [[10, 5, 30, 40], None]
    return ImageSet(normalise(pl.DataFrame({"path": names, "box": boxes})), root)


def same(a: Batch, b: Batch) -> bool:
    bad = [[(row, str(error)) for row, error in batch.bad] for batch in (a, b)]
    return torch.equal(a.images, b.images) and torch.equal(a.rows, b.rows) and bad[0] == bad[1]


def test_every_image_stands_in_its_place(images):
    boxes = images.table["box"].to_list()
    batches = list(loader(Pictures(images, SMALL), BATCHES, 0))
    assert len(batches) == len(BATCHES)
    for batch, draws in zip(batches, BATCHES, strict=True):
        good = [row for row, _ in draws if row not in BAD]
        assert batch.rows.tolist() == good and batch.rows.dtype == torch.int64
        assert [row for row, _ in batch.bad] == [row for row, _ in draws if row in BAD]
        for row, error in batch.bad:
            assert error.reason == BAD[row] and error.path == str(images.full_paths()[row])
        for row, tensor in zip(good, batch.images, strict=True):
            expected = SMALL(decode(images.full_paths()[row], box=boxes[row]))
            assert torch.equal(tensor, expected)


def test_a_batch_of_bad_images_only(images):
    batch = next(iter(loader(Pictures(images, SMALL), [[(3, 0), (6, 0)]], 0)))
    assert len(batch.images) == 0 == len(batch.rows)
    assert [row for row, _ in batch.bad] == [3, 6]


def test_workers_do_not_change_the_batches(images):
    pictures = Pictures(images, SMALL, Augment())
    state = torch.random.get_rng_state()
    alone = list(loader(pictures, BATCHES, 0))
    helped = list(loader(pictures, BATCHES, 1))
    assert torch.equal(torch.random.get_rng_state(), state)  # a resumed run draws the same
    assert len(alone) == len(helped)
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_the_seed_of_a_draw_rules_its_augmentation(images):
    augment = Augment(erase=0)
    pictures = Pictures(images, SMALL, augment)
    first, again, other = (pictures[(1, seed)][1] for seed in (4, 4, 5))
    assert isinstance(first, torch.Tensor) and isinstance(again, torch.Tensor)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first, augment(decode(images.full_paths()[1]), SMALL, 4))
    assert len(pictures) == 7


def test_large_jpegs_are_decoded_small_but_large_enough_for_the_smallest_crop(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(picture(0, (1280, 960)), "JPEG"))
    images = ImageSet(normalise(pl.DataFrame({"path": ["a.jpg"]})), tmp_path)
    seen = []

    class Spy(Augment):
        def __call__(self, image, preprocess, seed):
            seen.append(image.size)
            return super().__call__(image, preprocess, seed)

    preprocess = Preprocess(size=(60, 60))
    Pictures(images, preprocess, Spy())[(0, 0)]
    Pictures(images, preprocess, Spy(crop="resized-crop", scale=(0.0625, 1)))[(0, 0)]
    assert seen == [(160, 120), (320, 240)]  # 1/8; 1/4 for crops of a quarter of each side


def test_default_workers_and_the_error_of_strict():
    assert 0 <= default_workers() <= 16
    error = strict_stop(BadImage(Path("a.png"), "truncated"))
    assert str(error) == "a.png: truncated (--strict stops at the first bad image)"
