"""Local features: size, number, order, and what has none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from tests.spatial.scenes import scene

from resight.errors import UserError
from resight.spatial.local import LocalFeatures, SpatialOptions, local_features, to_side

OPTIONS = SpatialOptions()


def same(a: LocalFeatures, b: LocalFeatures) -> bool:
    arrays = np.array_equal(a.points, b.points) and np.array_equal(a.descriptors, b.descriptors)
    return arrays and a.size == b.size and a.descriptors.dtype == b.descriptors.dtype


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((960, 480), 480, (480, 240)),
        ((300, 400), 480, (300, 400)),
        ((64, 32), 480, (256, 128)),
        ((64, 64), 128, (128, 128)),
        ((5000, 2), 480, (480, 1)),
        ((1, 1), 480, (256, 256)),
    ],
)
def test_the_size_at_which_pictures_are_compared(size, side, expected):
    assert to_side(Image.new("RGB", size), side).size == expected


def test_shapes_and_kinds():
    found = local_features(scene(2), OPTIONS)
    assert len(found) > 200 and found.size == (320, 320)
    assert found.points.dtype == np.float32 and found.points.shape == (len(found), 2)
    assert found.descriptors.dtype == np.uint8 and found.descriptors.shape == (len(found), 128)
    assert (found.points >= -1).all() and (found.points <= 320).all()
    # Root-SIFT: of length 1, here 255, but for the rounding.
    lengths = np.linalg.norm(found.descriptors.astype(float), axis=1)
    np.testing.assert_allclose(lengths, 255, rtol=0.03)
    assert same(found, local_features(scene(2), OPTIONS))


def test_the_strongest_points_are_kept():
    every = local_features(scene(2), OPTIONS)
    few = local_features(scene(2), SpatialOptions(points=50))
    assert len(few) == 50
    assert np.array_equal(few.points, every.points[:50])
    assert np.array_equal(few.descriptors, every.descriptors[:50])


def test_a_small_picture_has_keypoints_too():
    small = scene(2).resize((64, 64))
    assert len(local_features(small, OPTIONS)) > 20


@pytest.mark.parametrize("size", [(300, 200), (1, 1), (2000, 3)])
def test_a_blank_picture_has_none(size):
    found = local_features(Image.new("RGB", size, (90, 120, 30)), OPTIONS)
    assert len(found) == 0 and found.points.shape == (0, 2)
    assert found.descriptors.shape == (0, 128) and found.descriptors.dtype == np.uint8


def test_grey_pictures_are_welcome():
    grey = scene(2).convert("L")
    assert same(local_features(grey, OPTIONS), local_features(grey.convert("RGB"), OPTIONS))


def test_aliked_wants_its_weights(tmp_path):
    with pytest.raises(ValidationError, match=r"aliked-n16\.pth"):
        SpatialOptions(detector="aliked")
    pytest.importorskip("kornia")
    wrong = tmp_path / "wrong.pth"
    for content in (b"", b"no weights"):
        wrong.write_bytes(content)
        with pytest.raises(UserError, match=r"wrong\.pth: not the weights"):
            local_features(scene(2), SpatialOptions(detector="aliked", weights=str(wrong)))
    wrong.unlink()
    with pytest.raises(UserError, match=r"wrong\.pth: no such file"):
        local_features(scene(2), SpatialOptions(detector="aliked", weights=str(wrong)))


def test_aliked(tmp_path, monkeypatch):
    aliked = pytest.importorskip("kornia.feature.aliked")
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(aliked.ALIKED("aliked-n16").state_dict(), tmp_path / "random.pth")
    weights = str(tmp_path / "random.pth")
    options = SpatialOptions(detector="aliked", weights=weights, points=40, side=64)
    found = local_features(scene(2), options)
    assert 0 < len(found) <= 40 and found.size == (64, 64)
    assert found.descriptors.dtype == np.int8 and found.descriptors.shape == (len(found), 128)
    lengths = np.linalg.norm(found.descriptors.astype(float), axis=1)
    np.testing.assert_allclose(lengths, 254, rtol=0.05)
    assert same(found, local_features(scene(2), options))
    monkeypatch.setattr("resight.spatial.aliked._LEAST", 1.0)  # no score is above it
    assert local_features(scene(2), options).descriptors.shape == (0, 128)
