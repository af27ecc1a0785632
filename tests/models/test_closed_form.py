"""Whitening: against the papers' formulas done slowly, whatever the blocks, and as an embedder."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles import whitening as oracle
from tests.pictures import picture
from torch.nn import functional as F

from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.models import whitening as w
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.heads import Whitening


def rows(count: int, dims: int, seed: int = 0) -> np.ndarray:
    """Correlated vectors of any length around a mean that isn't 0."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dims, dims)) * np.geomspace(3, 0.1, dims)
    made = (rng.normal(size=(count, dims)) @ mix + 2) * rng.uniform(0.1, 50, (count, 1))
    return made.astype(np.float32)


def objects_of(count: int, objects: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, objects, count)


def labelled(count: int, dims: int, objects: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Objects lie apart along the first axes, and spread most along the others."""
    rng = np.random.default_rng(seed)
    names = objects_of(count, objects, seed)
    centres = rng.normal(size=(objects + 1, dims)) * np.geomspace(1, 0.05, dims)
    spread = rng.normal(size=(count, dims)) * np.geomspace(0.02, 1, dims)
    return (centres[names] + spread).astype(np.float32), names


def apply(pair: w.Pair, vectors: np.ndarray) -> np.ndarray:
    weight, bias = (part.astype(np.float64) for part in pair)
    return oracle.unit(vectors) @ weight.T + bias


# --- without labels


def test_whitened_rows_have_mean_0_and_covariance_1():
    vectors = rows(500, 12)
    out = apply(w.pca_whitening(vectors, 8, shrink=0), vectors)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out.T @ out / len(out), np.eye(8), atol=1e-4)


def test_the_main_axes_come_first_and_power_0_only_turns():
    vectors = rows(300, 10)
    centred = oracle.unit(vectors) - oracle.unit(vectors).mean(0)
    variances = np.sort(np.linalg.svd(centred, compute_uv=False) ** 2 / 300)[::-1]
    weight, bias = w.pca_whitening(vectors, 10, power=0)
    assert weight.dtype == bias.dtype == np.float32
    np.testing.assert_allclose(weight @ weight.T, np.eye(10), atol=1e-5)
    np.testing.assert_allclose(apply((weight, bias), vectors).var(0), variances, rtol=1e-4)
    half = w.pca_whitening(vectors, 10, power=0.25, shrink=0)
    np.testing.assert_allclose(apply(half, vectors).var(0), variances**0.5, rtol=1e-4)
    few = w.pca_whitening(vectors, 3, power=0.25, shrink=0)
    np.testing.assert_array_equal(few[0], half[0][:3])  # dims only cuts off


@given(st.integers(1, 80), st.integers(0, 5))
def test_blocks_order_and_unusable_rows_change_nothing(block, seed):
    vectors = rows(61, 6, seed)
    rng = np.random.default_rng(seed)
    valid = rng.random(61) < 0.7
    expected = w.pca_whitening(vectors[valid], 5)
    shuffled = w.pca_whitening(rng.permutation(vectors[valid]), 5, block=block)
    vectors[~valid] = np.nan
    masked = w.pca_whitening(vectors, 5, valid=valid, block=block)
    for found in (shuffled, masked):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_length_of_a_vector_counts_for_nothing():
    vectors = rows(50, 6)
    scaled = vectors * np.float32(2) ** np.arange(50)[:, None].clip(0, 20)
    for a, b in zip(w.pca_whitening(vectors, 6), w.pca_whitening(scaled, 6), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@given(st.integers(3, 60), st.integers(2, 9), st.integers(0, 9))
def test_moments_and_shrinkage_in_one_pass(count, dims, seed):
    vectors = rows(count, dims, seed)
    unit = oracle.unit(vectors)
    found = w.moments(vectors, block=7)
    centred = unit - unit.mean(0)
    np.testing.assert_allclose(found.mean, unit.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.covariance, centred.T @ centred / count, atol=1e-12)
    np.testing.assert_allclose(found.fourth, (centred**2).sum(1).__pow__(2).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.shrinkage(), oracle.shrinkage(centred), rtol=1e-5)


def test_little_data_is_not_stretched_to_noise():
    """Of round data all variances are one; 30 rows in 20 dimensions seem far from it."""
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(30, 20)), rng.normal(size=(2000, 20))

    def spread(pair: w.Pair) -> float:
        variances = apply(pair, many).var(0)
        return float(variances.max() / variances.min())

    assert spread(w.pca_whitening(few, 20)) < 2
    assert spread(w.pca_whitening(few, 20, shrink=0)) > 10
    assert spread(w.pca_whitening(few, 20, shrink=1)) < 2


def test_more_dimensions_than_there_are_is_said(recwarn):
    said: list[str] = []
    vectors = rows(6, 10)
    weight, bias = w.pca_whitening(vectors, 10, tell=said.append)
    assert weight.shape == (5, 10) and bias.shape == (5,)
    assert said == ["5 dimensions instead of 10: 6 vectors differ in no more directions"]
    flat = rows(50, 10)
    flat[:, 4:] = flat[:, :1]  # repeats
    said.clear()
    weight, _ = w.pca_whitening(flat, 8, tell=said.append)
    assert weight.shape == (4, 10) and len(said) == 1
    assert np.isfinite(weight).all() and np.abs(apply((weight, _), flat)).max() < 100
    said.clear()
    assert w.pca_whitening(vectors, 5, tell=said.append)[0].shape == (5, 10) and not said
    assert not recwarn.list


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: w.pca_whitening(rows(9, 3), 0), "dims 0: at least 1"),
        (lambda: w.pca_whitening(rows(9, 3), 2, power=1.5), "power 1.5"),
        (lambda: w.pca_whitening(np.ones((9, 3)), 2), "all vectors are the same"),
        (lambda: w.pca_whitening(np.zeros((9, 3)), 2), "all vectors are the same"),
        (lambda: w.pca_whitening(rows(1, 3), 2), "usable vectors: 1;"),
        (lambda: w.pca_whitening(rows(9, 3), 2, valid=np.zeros(9)), "usable vectors: 0;"),
        (lambda: w.pca_whitening(rows(9, 3), 2, valid=np.ones(8)), r"\(8,\) for 9"),
        (lambda: w.pca_whitening(np.full((9, 3), np.nan), 2), "not finite"),
        (lambda: w.learned_whitening(rows(9, 3), np.arange(9), 2), "0 objects with two"),
        (lambda: w.learned_whitening(rows(9, 3), np.r_[0, 0, 1:8], 2), "1 objects with two"),
        (lambda: w.learned_whitening(rows(9, 3), np.zeros(8), 2), r"\(8,\) objects for 9"),
        (
            lambda: w.learned_whitening(rows(4, 3).repeat(2, 0), np.arange(4).repeat(2), 2),
            "equal vectors",
        ),
    ],
)  # fmt: skip
def test_nothing_to_learn_is_one_clear_sentence(make, text):
    with pytest.raises(ValueError, match=text):
        make()


# --- with labels


@given(st.integers(1, 90), st.integers(0, 5))
def test_the_spread_within_objects_is_that_of_their_pairs(block, seed):
    vectors, objects = labelled(60, 5, 11, seed)
    found = w.within(vectors, objects, block=block)
    np.testing.assert_allclose(found.covariance, oracle.within(vectors, objects), atol=1e-12)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(60), rng.permutation(11)
    renamed = np.where(objects < 0, -1, names[objects])
    again = w.within(vectors[order], renamed[order], block=block)
    assert again.count == found.count
    np.testing.assert_allclose(again.covariance, found.covariance, atol=1e-12)
    np.testing.assert_allclose(again.fourth, found.fourth, rtol=1e-9)


def test_pairs_of_images_shrink_like_as_many_independent_differences():
    rng = np.random.default_rng(1)
    vectors, objects = rng.normal(size=(40, 6)), np.arange(20).repeat(2)
    unit = oracle.unit(vectors)
    differences = (unit[::2] - unit[1::2]) / np.sqrt(2)
    found = w.within(vectors, objects)
    assert found.count == 20
    np.testing.assert_allclose(found.shrinkage(), oracle.shrinkage(differences), rtol=1e-6)


@pytest.mark.parametrize("shrink", [0.0, 0.2])
def test_learned_whitening_is_the_papers(shrink):
    vectors, objects = labelled(200, 8, 30)
    expected, _ = oracle.learned(vectors, objects, 5, shrink)
    pair = w.learned_whitening(vectors, objects, 5, shrink=shrink, block=17)
    out = apply(pair, vectors)
    signs = np.sign((out * expected).sum(0))
    np.testing.assert_allclose(out * signs, expected, rtol=1e-3, atol=1e-3)
    if not shrink:  # the differences within objects have the covariance 1
        known = pair[0].astype(np.float64)
        inside = known @ oracle.within(vectors, objects) @ known.T
        np.testing.assert_allclose(inside, np.eye(5), atol=1e-3)


def test_labels_bring_unseen_objects_together_where_pca_does_not():
    vectors, objects = labelled(400, 16, 40, seed=3)
    test, names = labelled(400, 16, 40, seed=4)
    known = names >= 0

    def hits(out: np.ndarray) -> float:
        """R@1 by the cosine, among the images of known objects."""
        unit = oracle.unit(out[known])
        near = (unit @ unit.T - 9 * np.eye(len(unit))).argmax(1)
        return float(np.mean(names[known] == names[known][near]))

    pca = hits(apply(w.pca_whitening(vectors, 16), test))
    learned = hits(apply(w.learned_whitening(vectors, objects, 16), test))
    assert learned > max(hits(test), pca) + 0.1, (hits(test), pca, learned)


def test_fewer_pairs_than_dimensions_stay_finite():
    vectors, objects = rows(12, 40), np.arange(6).repeat(2)
    said: list[str] = []
    weight, bias = w.learned_whitening(vectors, objects, 40, tell=said.append)
    assert weight.shape == (11, 40) and len(said) == 1
    assert np.isfinite(weight).all() and np.isfinite(bias).all()
    steady = vectors.copy()
    steady[:, :3] = np.float32(objects[:, None]) * [1, 2, 3]  # no spread within objects at all
    forced = w.learned_whitening(steady, objects, 5, shrink=0)
    assert all(np.isfinite(part).all() for part in forced)


def test_kept_share_is_the_variance_of_the_projected_rows():
    vectors = rows(150, 9)
    centred = oracle.unit(vectors) - oracle.unit(vectors).mean(0)
    variances = np.sort(np.linalg.svd(centred, compute_uv=False) ** 2)[::-1]
    weight, _ = w.pca_whitening(vectors, 4)
    expected = variances[:4].sum() / variances.sum()
    assert w.kept_share(vectors, weight, block=31) == pytest.approx(expected, rel=1e-6)
    everything, _ = w.pca_whitening(vectors, 9)
    assert w.kept_share(vectors, everything) == pytest.approx(1)


# --- as part of an embedder


@pytest.fixture(scope="module")
def turned(embedder) -> Embedder:
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(5, embedder.features_dim)).astype(np.float32)
    return w.whitened(embedder, weight, rng.normal(size=5).astype(np.float32))


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_module_is_unit_length_then_linear(embedder, turned):
    layer = turned.whitening
    assert isinstance(layer, Whitening)
    f = torch.randn(4, embedder.features_dim) * 30
    expected = F.normalize(embedder.neck(f)) @ layer.linear.weight.T + layer.linear.bias
    torch.testing.assert_close(turned.finish(f), expected)
    assert turned.dim == 5 and turned.features_dim == embedder.features_dim == embedder.dim
    f, e = turned(images())
    assert f.shape == (3, turned.features_dim) and e.shape == (3, 5)
    fresh = Whitening(4, 3)
    torch.testing.assert_close(fresh(torch.eye(4)), torch.eye(4, 3))
    assert not turned.training and embedder.config.whiten is None  # the first is untouched


def test_scales_are_summed_before_one_whitening(embedder, turned):
    x = images()
    before = embedder.embed_tensor(x, flip=True, scales=(1, 0.5))
    torch.testing.assert_close(
        turned.embed_tensor(x, flip=True, scales=(1, 0.5)), turned.whitening(before)
    )
    one = embedder.embed_tensor(x, flip=True)
    torch.testing.assert_close(turned.embed_tensor(x, flip=True), turned.whitening(one))
    assert torch.equal(turned.embed_tensor(x), turned(x)[1])


def test_a_whitened_embedder_makes_the_round_trip(embedder, turned, tmp_path):
    folder = turned.save(tmp_path)
    loaded = Embedder.load(folder, "cpu")
    assert loaded.config == turned.config and loaded.config.whiten == 5 and loaded.dim == 5
    assert loaded.fingerprint() == turned.fingerprint() != embedder.fingerprint()
    photo = picture(0, (40, 24))
    assert np.array_equal(loaded.embed(photo), turned.embed(photo))
    assert loaded.embed([]).shape == (0, 5)
    assert "5 dimensions" in (folder / "README.md").read_text()
    other = copy.deepcopy(turned)
    with torch.no_grad():
        other.whitening.linear.bias[0] += 1
    assert other.fingerprint() != turned.fingerprint()


def test_embedders_without_whitening_are_as_they_were(embedder, tmp_path):
    """Their files don't know the key, and their fingerprint is that of the old configuration."""
    content = json.loads((embedder.save(tmp_path) / "embedder.json").read_text())
    assert "whiten" not in content["config"]
    assert list(embedder.config.model_dump(mode="json")) == [*content["config"], "whiten"]
    assert Embedder.load(tmp_path, "cpu").fingerprint() == embedder.fingerprint()
    preprocess = Preprocess(size=(32, 32), mean=(0.5, 0.5, 1 / 3))
    config = EmbedderConfig(backbone="test_resnet", gem_p=1e-7, preprocess=preprocess)
    old = config.model_dump_json().replace(',"whiten":null', "")
    assert config.written() == old and '"whiten"' not in old
    assert '"whiten":4' in config.model_copy(update={"whiten": 4}).written()


def test_a_second_whitening_and_a_wider_one_are_refused(embedder, turned):
    pair = np.eye(3, 5, dtype=np.float32), np.zeros(3, np.float32)
    with pytest.raises(UserError, match=r"whitened already \(to 5 dimensions\); whiten the one"):
        w.whitened(turned, *pair)
    with pytest.raises(ValueError, match="weight"):
        w.whitened(embedder, *pair)
    with pytest.raises(UserError, match="whiten 9999: only"):
        Embedder(EmbedderConfig(backbone="test_resnet", whiten=9999))
