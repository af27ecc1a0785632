"""Test and train transforms: sizes, values, and the same tensor for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.pictures import noise, picture
from torchvision.transforms import v2

from resight.data.transforms import Augment, Preprocess, to_tensor
from resight.errors import UserError
from resight.settings import build

NOTHING = {"flip": 0, "pad": 0, "erase": 0}
SMALL = Preprocess(size=(32, 16))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b)


@settings(max_examples=60, deadline=None)
@given(
    picture_size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    size=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    margin=st.floats(1, 2),
)
def test_sizes(picture_size, size, margin):
    image = Image.new("RGB", picture_size)
    for way in ("stretch", "crop"):
        preprocess = Preprocess(size=size, resize=way, crop_margin=margin)
        assert preprocess(image).shape == (3, *size)
    width, height = Preprocess(size=size, resize="fit").resized(image).size
    assert max(width, height) == max(size)
    scale = max(size) / max(picture_size)
    assert abs(width - picture_size[0] * scale) <= 1
    assert abs(height - picture_size[1] * scale) <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_stretch_is_pillow_s_resize(interpolation):
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    preprocess = Preprocess(size=(20, 12), interpolation=interpolation)
    expected = noise(0, (50, 40)).resize((12, 20), method[interpolation])
    assert np.array_equal(preprocess.resized(noise(0, (50, 40))), expected)


def test_tensors_are_torchvision_s_to_the_last_digit():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = v2.Compose(
        [v2.PILToTensor(), v2.ToDtype(torch.float32, True), v2.Normalize(mean, std)]
    )
    image = noise(3, (33, 21))
    ours = Preprocess(size=(21, 33), mean=mean, std=std)
    assert torch.equal(to_tensor(image), v2.functional.pil_to_tensor(image))
    assert torch.equal(ours.normalise(to_tensor(image)), theirs(image))


@pytest.mark.parametrize("size", [(320, 256), (256, 400), (300, 300), (512, 700)])
def test_crop_is_torchvision_s_resize_and_centre_crop(size):
    theirs = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])
    ours = Preprocess(size=(224, 224), resize="crop").resized(picture(0, size))
    # The long side may round to one pixel more, which shifts it by half a pixel.
    gap = np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs(picture(0, size)), dtype=int))
    assert gap.mean() < 1 and gap.max() < 12


def test_crop_keeps_the_centre():
    image = Image.new("RGB", (400, 100), "white")
    image.paste((255, 0, 0), (180, 0, 220, 100))
    result = np.asarray(Preprocess(size=(64, 64), resize="crop").resized(image))
    red = result[32, :, 1] < 128
    assert np.flatnonzero(red).mean() == pytest.approx(31.5, abs=0.5)
    assert red.sum() == pytest.approx(40 * 64 * 256 / 224 / 100, abs=1.5)


def test_normalisation():
    preprocess = Preprocess(size=(20, 30))
    image = noise(0, (30, 20))
    pixels = np.asarray(image, dtype=np.float64).transpose(2, 0, 1) / 255
    mean, std = np.array(preprocess.mean)[:, None, None], np.array(preprocess.std)[:, None, None]
    result = preprocess(image)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), (pixels - mean) / std, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    image=st.tuples(st.integers(8, 5000), st.integers(8, 5000)),
    size=st.tuples(st.integers(8, 500), st.integers(8, 500)),
    way=st.sampled_from(["stretch", "crop", "fit"]),
)
def test_a_reduced_decode_is_never_made_larger_again(image, size, way):
    """A picture at its decode target is still as large as what becomes of the full one."""
    preprocess = Preprocess(size=size, resize=way)
    target = preprocess.decode_target
    shrink = max(1.0, min(image[0] / target[1], image[1] / target[0]))
    width, height = image[0] / shrink, image[1] / shrink
    if way == "stretch":
        needed = (size[1], size[0])
    else:
        scales = [size[1] / image[0], size[0] / image[1]]
        scale = max(size) / max(image) if way == "fit" else max(scales) * preprocess.crop_margin
        needed = (image[0] * scale, image[1] * scale)
    assert width >= min(needed[0], image[0]) * 0.999
    assert height >= min(needed[1], image[1]) * 0.999


augments = st.builds(
    Augment,
    crop=st.sampled_from(["pad-crop", "resized-crop"]),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    pad=st.integers(0, 12),
    erase=st.sampled_from([0.0, 0.5, 1.0]),
    jitter=st.sampled_from([0.0, 0.3]),
    rotate=st.sampled_from([0.0, 20.0]),
)


@settings(max_examples=40, deadline=None)
@given(augment=augments, seed=st.integers(0, 2**63 - 1), other=st.integers(0, 100))
def test_a_pure_function_of_picture_settings_and_seed(augment, seed, other):
    image, before = picture(0, (40, 60)), torch.random.get_rng_state()
    first = augment(image, SMALL, seed)
    assert first.shape == (3, 32, 16) and first.dtype == torch.float32
    augment(image, SMALL, other)
    torch.rand(other)
    assert same(augment(image, SMALL, seed), first)
    assert np.array_equal(image, picture(0, (40, 60)))
    torch.random.set_rng_state(before)
    augment(image, SMALL, seed)
    assert same(torch.random.get_rng_state(), before)  # the global generator is left alone


def test_other_seeds_give_other_tensors():
    for augment in (Augment(), Augment(crop="resized-crop"), Augment(**NOTHING, jitter=0.2)):
        results = [augment(picture(0), SMALL, seed) for seed in range(6)]
        assert len({tuple(x.flatten().tolist()) for x in results}) >= 5


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), size=st.tuples(st.integers(8, 40), st.integers(8, 40)))
def test_nothing_augmented_is_the_test_transform(seed, size):
    preprocess = Preprocess(size=size)
    assert same(Augment(**NOTHING)(noise(0), preprocess, seed), preprocess(noise(0)))


def test_flip_1_is_the_mirror_image():
    mirrored = Augment(**NOTHING | {"flip": 1})(noise(0), SMALL, 5)
    assert same(mirrored, SMALL(noise(0)).flip(2))


def test_flip_happens_as_often_as_told():
    plain = SMALL(noise(0))
    augment = Augment(**NOTHING | {"flip": 0.3})
    flipped = sum(not same(augment(noise(0), SMALL, seed), plain) for seed in range(400))
    assert 85 <= flipped <= 155  # 120 ± 3.8 standard deviations


def test_pad_crop_moves_the_picture_over_black():
    pad = 5
    augment = Augment(**NOTHING | {"pad": pad})
    pixels = to_tensor(SMALL.resized(noise(0)))
    padded = SMALL.normalise(torch.nn.functional.pad(pixels, (pad,) * 4))
    allowed = {
        tuple(padded[:, y : y + 32, x : x + 16].flatten().tolist())
        for y in range(2 * pad + 1)
        for x in range(2 * pad + 1)
    }
    drawn = {tuple(augment(noise(0), SMALL, s).flatten().tolist()) for s in range(60)}
    assert drawn <= allowed and len(drawn) > 30


def test_erasing_comes_last_and_fills_with_zero():
    augment = Augment(**NOTHING | {"erase": 1})
    # No pixel of a white picture is 0 once it is normalised.
    white = Image.new("RGB", (40, 60), "white")
    plain = SMALL(white)
    for seed in range(20):
        result = augment(white, SMALL, seed)
        gone = result != plain
        assert (result[gone] == 0).all()
        assert torch.equal(gone[0], gone[1]) and torch.equal(gone[0], gone[2])
        rows, columns = gone[0].any(1).nonzero(), gone[0].any(0).nonzero()
        area = len(rows) * len(columns)
        assert gone[0].sum() == area  # one rectangle
        assert 0.01 <= area / (32 * 16) <= 0.45


def test_resized_crop_shows_a_part():
    """Of a picture whose colour tells the place, every crop shows a range within it."""
    ramp = np.linspace(0, 255, 200).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (200, 1))] * 3, axis=2))
    preprocess = Preprocess(size=(24, 24), mean=(0, 0, 0), std=(1, 1, 1))
    augment = Augment(**NOTHING, crop="resized-crop", scale=(0.2, 0.5))
    for seed in range(20):
        row = augment(image, preprocess, seed)[0, 12]
        assert (row.diff() >= 0).all()
        # sqrt(area · ratio) of the width, the ratio between 3/4 and 4/3
        assert 0.35 <= float(row[-1] - row[0]) <= 0.83


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flipp": 1}, "here: no setting 'flipp'; did you mean flip?"),
        ({"xyz": 1}, "here: no setting 'xyz'; there are: crop, flip, pad"),
        ({"flip": 2}, "here: flip = 2: input should be less than or equal to 1"),
        ({"flip": float("nan")}, "here: flip = nan: "),
        ({"crop": "center"}, "here: crop = 'center': input should be 'pad-crop' or"),
        ({"pad": -1}, "here: pad = -1: "),
        ({"pad": 1.5}, "here: pad = 1.5: "),
        ({"scale": [0.9, 0.1]}, "here: scale = [0.9, 0.1]: the smaller number comes first"),
        ({"scale": [0.9]}, "here: the setting 'scale.1' is missing"),
        ({"erase_area": [0.5, 0.1]}, "here: erase_area = [0.5, 0.1]: the smaller"),
        ({"erase_ratio": [0, 1]}, "here: erase_ratio.0 = 0: input should be greater than 0"),
        ({"rotate": 181}, "here: rotate = 181: "),
    ],
)
def test_wrong_augmentations(values, message):
    with pytest.raises(UserError) as error:
        build(Augment, values, "here")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": [0, 10]}, "here: size.0 = 0: "),
        ({"size": 224}, "here: size = 224: "),
        ({"std": [0.1, 0, 0.1]}, "here: std.1 = 0: input should be greater than 0"),
        ({"mean": [0, 0, float("inf")]}, "here: mean.2 = inf: "),
        ({"crop_margin": 0.5}, "here: crop_margin = 0.5: "),
        ({"resize": "squash"}, "here: resize = 'squash': "),
        ({"interpolaton": "bicubic"}, "here: no setting 'interpolaton'; did you mean interp"),
    ],
)
def test_wrong_preprocessing(values, message):
    with pytest.raises(UserError) as error:
        build(Preprocess, values, "here")
    assert str(error.value).startswith(message)
