"""The embedder: photos in any form, flip and scales, and its folder."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.damage import flip
from tests.pictures import encoded, picture
from torch.nn import functional as F

from resight.data.decode import BadImage
from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.open import open_embedder, preprocess_for


@pytest.fixture
def saved(embedder, tmp_path) -> Path:
    return embedder.save(tmp_path / "embedder", {"scores": {"mAP": 0.5}})


def photo(seed: int = 0, size: tuple[int, int] = (40, 24)) -> Image.Image:
    return picture(seed, size)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", a, b)


def test_a_path_a_string_bytes_and_a_picture_give_the_same_vector(embedder, tmp_path):
    path = tmp_path / "ä photo.png"
    photo().save(path)
    forms = [path, str(path), path.read_bytes(), photo(), Image.open(path)]
    together = embedder.embed(forms)
    assert together.shape == (5, embedder.dim) and together.dtype == np.float32
    for form, row in zip(forms, together, strict=True):
        alone = embedder.embed(form)
        assert alone.shape == (1, embedder.dim)
        np.testing.assert_allclose(alone[0], row, atol=1e-5)
        np.testing.assert_allclose(row, together[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    assert embedder.embed([]).shape == (0, embedder.dim)


def test_an_opened_picture_is_turned_and_flattened_like_its_file(embedder, tmp_path):
    """A phone's portrait photo, and a cut-out on a transparent ground."""
    clear = photo(1).convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.uint8([0, 255]), (24, 20))))
    deep = Image.fromarray((np.asarray(photo(2))[..., 0].astype(np.uint16)) * 257)
    for n, content in enumerate(
        [encoded(photo(), "PNG", turn=6), encoded(clear, "PNG"), encoded(deep, "PNG")]
    ):
        path = tmp_path / f"{n}.png"
        path.write_bytes(content)
        from_file, from_picture = embedder.embed(path), embedder.embed(Image.open(path))
        np.testing.assert_allclose(from_picture, from_file, atol=1e-5)
    turned = embedder.embed(encoded(photo(), "PNG", turn=6))
    assert cosines(turned, embedder.embed(photo()))[0] < 0.999
    by_hand = photo().transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_allclose(turned, embedder.embed(by_hand), atol=1e-5)


def test_embed_is_the_network_on_the_preprocessed_photo(embedder):
    photos = [photo(k) for k in range(5)]
    tensors = torch.stack([embedder.preprocess(image) for image in photos])
    with torch.no_grad():
        expected = embedder.neck(embedder.backbone.forward_features(tensors).mean((2, 3))).numpy()
    raw = embedder.embed(photos, normalize=False, batch_size=2)
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-4)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder.embed(photos), unit, rtol=1e-4, atol=1e-4)


def test_features_and_neck_are_the_two_halves_of_forward(embedder):
    model = copy.deepcopy(embedder)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        f, e = model(x)
        assert torch.equal(model.features(x), f) and torch.equal(model.neck(f), e)
    assert not torch.allclose(f, e)
    model.neck.register_forward_hook(lambda *_: pytest.fail("the features went through the neck"))
    model.train().features(x)


def test_preprocess_for_takes_the_weights_mean_and_the_resize_asked_for():
    plain = preprocess_for("vit_tiny_patch16_224", (64, 32))
    assert plain.resize == "stretch" and plain.size == (64, 32) and plain.mean == (0.5, 0.5, 0.5)
    cropped = preprocess_for("vit_tiny_patch16_224", (64, 32), resize="crop")
    assert cropped == plain.model_copy(update={"resize": "crop"})
    assert preprocess_for("resnet50_ibn_a", (64, 32), "crop").resize == "crop"


def test_an_unreadable_photo_is_named(embedder, tmp_path):
    (tmp_path / "x.jpg").write_text("no picture")
    with pytest.raises(BadImage, match=r"x\.jpg: not an image"):
        embedder.embed([photo(), tmp_path / "x.jpg"])


def test_flip_and_scales_are_as_defined(embedder):
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def e(images):
        with torch.no_grad():
            return embedder(images)[1]

    torch.testing.assert_close(embedder.embed_tensor(x), e(x))
    flipped = (e(x) + e(x.flip(3))) / 2
    torch.testing.assert_close(embedder.embed_tensor(x, flip=True), flipped)
    half = F.interpolate(x, size=(16, 16), mode="bilinear", antialias=True, align_corners=False)
    both = F.normalize(e(x)) + F.normalize(e(half))
    torch.testing.assert_close(embedder.embed_tensor(x, scales=(1, 0.5)), both)
    small = (e(half) + e(half.flip(3))) / 2
    torch.testing.assert_close(
        embedder.embed_tensor(x, flip=True, scales=(1, 0.5)),
        F.normalize(flipped) + F.normalize(small),
    )
    # A single other scale is not brought to unit length: nothing is summed.
    torch.testing.assert_close(embedder.embed_tensor(x, scales=(0.5,)), e(half))


def test_a_mode_left_in_training_does_not_change_the_embedding(embedder):
    model = copy.deepcopy(embedder)
    expected = model.embed([photo()])
    model.train()
    assert np.array_equal(model.embed([photo()]), expected)
    assert torch.equal(model.neck.running_mean, embedder.neck.running_mean)


def test_scales_that_a_transformer_refuses_are_a_clear_error():
    config = EmbedderConfig(backbone="test_vit_relpos", preprocess=Preprocess(size=(32, 32)))
    with pytest.raises(UserError, match=r"test_vit_relpos can't take images at scale 0\.5"):
        Embedder(config).embed_tensor(torch.zeros(1, 3, 32, 32), scales=(1, 0.5))


def test_photos_of_different_shapes():
    preprocess = Preprocess(size=(64, 64), resize="fit")
    model = Embedder(EmbedderConfig(backbone="test_resnet", preprocess=preprocess)).eval()
    photos = [photo(0, (60, 30)), photo(1, (20, 50)), photo(2, (30, 30))]
    together = model.embed(photos)
    for image, row in zip(photos, together, strict=True):
        np.testing.assert_allclose(model.embed(image)[0], row, atol=1e-5)


def test_a_round_trip_is_equal_to_the_bit(embedder, saved):
    loaded = Embedder.load(str(saved), "cpu")
    assert loaded.config == embedder.config and not loaded.training
    assert loaded.info == {"scores": {"mAP": 0.5}}
    own, other = embedder.state_dict(), loaded.state_dict()
    assert list(own) == list(other)
    assert all(torch.equal(own[key], other[key]) for key in own)
    assert not loaded.neck.bias.requires_grad
    photos = [photo(k) for k in range(3)]
    assert np.array_equal(loaded.embed(photos), embedder.embed(photos))
    assert loaded.fingerprint() == embedder.fingerprint()
    assert "0.5" in (saved / "README.md").read_text()
    again = loaded.save(saved.parent / "again")  # what was known about it goes along
    assert Embedder.load(again, "cpu").info == loaded.info


@pytest.mark.parametrize(
    "values",
    [
        {"backbone": "test_resnet", "pooling": "gem", "gem_p": 2.5, "projection": 8},
        {"backbone": "test_vit", "bn_neck": False},
        {"backbone": "test_efficientnet", "last_stride": 1},
        {"backbone": "test_mambaout"},
    ],
)
def test_other_kinds_make_the_round_trip_too(tmp_path, values):
    config = EmbedderConfig(preprocess=Preprocess(size=(48, 32), mean=(0.5, 0.4, 0.3)), **values)
    model = Embedder(config).eval()
    loaded = Embedder.load(model.save(tmp_path), "cpu")
    assert loaded.config == model.config
    assert np.array_equal(loaded.embed(photo()), model.embed(photo()))


def test_the_fingerprint_sees_any_weight_and_any_setting(embedder):
    other = copy.deepcopy(embedder)
    with torch.no_grad():
        other.neck.running_var[3] += 1e-6
    assert other.fingerprint() != embedder.fingerprint()
    other = copy.deepcopy(embedder)
    other.config = embedder.config.model_copy(
        update={"preprocess": embedder.preprocess.model_copy(update={"interpolation": "bicubic"})}
    )
    assert other.fingerprint() != embedder.fingerprint()


def test_a_run_or_a_gallery_stands_for_the_embedder_in_it(embedder, tmp_path):
    embedder.save(tmp_path / "run" / "embedder")
    assert Embedder.load(tmp_path / "run", "cpu").fingerprint() == embedder.fingerprint()
    opened = open_embedder(str(tmp_path / "run"), device="cpu")
    assert opened.fingerprint() == embedder.fingerprint()
    with pytest.raises(UserError, match="go with a backbone's name"):
        open_embedder(str(tmp_path / "run"), size=(32, 32))


def test_open_a_bare_backbone():
    model = open_embedder("test_resnet", weights="none", size=(48, 32), device="cpu")
    assert model.config.last_stride == 2 and not model.config.bn_neck
    assert model.preprocess.size == (48, 32)
    x = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1], model.backbone.forward_features(x).mean((2, 3)))


def broken(saved: Path, change: str) -> None:
    config, weights = saved / "embedder.json", saved / "model.safetensors"
    content = json.loads(config.read_text())
    if change == "no json":
        config.write_text("{")
    elif change == "a list":
        config.write_text("[]")
    elif change == "no config":
        config.write_text("{}")
    elif change == "unknown key":
        config.write_text(json.dumps(content | {"config": content["config"] | {"poling": 1}}))
    elif change == "wrong value":
        config.write_text(json.dumps(content | {"config": content["config"] | {"gem_p": -1}}))
    elif change == "no such backbone":
        config.write_text(json.dumps(content | {"config": content["config"] | {"backbone": "x"}}))
    elif change == "other model":
        config.write_text(json.dumps(content | {"config": content["config"] | {"projection": 7}}))
    elif change == "weights gone":
        weights.unlink()
    elif change == "weights cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif change == "a bit flipped":
        flip(weights)
    elif change == "weights empty":
        weights.write_bytes(b"")
    else:
        raise AssertionError(change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("no json", "embedder.json: not valid JSON"),
        ("a list", "embedder.json: not an embedder's configuration"),
        ("no config", "embedder.json: not an embedder's configuration"),
        ("unknown key", "embedder.json: no setting 'poling'; did you mean pooling?"),
        ("wrong value", "embedder.json: gem_p = -1: input should be greater than 0"),
        ("no such backbone", "no such backbone"),
        ("other model", "model.safetensors: damaged or of another model"),
        ("weights gone", "model.safetensors: not found"),
        ("weights cut", "model.safetensors: damaged"),
        ("a bit flipped", "model.safetensors: damaged, not what was written"),
        ("weights empty", "model.safetensors: damaged"),
    ],
)
def test_a_damaged_folder_is_one_clear_line(saved, change, text):
    broken(saved, change)
    with pytest.raises(UserError) as error:
        Embedder.load(saved)
    assert text in str(error.value) and "\n" not in str(error.value)


def test_an_embedder_without_a_checksum_opens_still(saved):
    content = json.loads((saved / "embedder.json").read_text())
    del content["sha256"]
    (saved / "embedder.json").write_text(json.dumps(content))
    flip(saved / "model.safetensors")
    Embedder.load(saved)


@pytest.mark.parametrize("after", ["model.safetensors", "README.md"])
def test_killed_while_saving_anew_it_opens_still(embedder, saved, monkeypatch, after):
    """The weights may be the new ones, and the checksum must not be that of the old."""
    other = copy.deepcopy(embedder)
    with torch.no_grad():
        other.neck.weight[0] = 2
    real = os.replace

    def stop(source, target):
        real(source, target)
        if Path(target).name == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stop)
        other.save(saved)
    assert Embedder.load(saved).fingerprint() == other.fingerprint()


def test_what_is_no_embedder(tmp_path):
    with pytest.raises(UserError, match="not found; an embedder was expected here"):
        Embedder.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a file; an embedder is a folder"):
        Embedder.load(tmp_path / "file")


def test_no_pickle_is_loaded_from_an_embedder(saved, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    (saved / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="damaged"):
        Embedder.load(saved)
    assert not (tmp_path / "pwned").exists()
    names = {path.name for path in saved.iterdir()}
    assert names == {"embedder.json", "model.safetensors", "README.md"}
