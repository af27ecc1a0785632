"""Embedders with a fitted projection: their formula, their folder, and what copies share."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.pictures import picture
from torch.nn import functional as F

from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.models.closed_form import Pair, project
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.fitted import is_bare, projected, unwhitened, whitened, with_parts
from resight.models.heads import Whitening


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def pair_for(dims: int, to: int = 5) -> Pair:
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(to, dims)).astype(np.float32)
    return weight, rng.normal(size=to).astype(np.float32)


@pytest.fixture(scope="module")
def bare(embedder) -> Embedder:
    """The maps of three depths of the same backbone, one of them on a grid."""
    return with_parts(embedder, [(1, 1), (2, 2), (3, 1)])


@pytest.fixture(scope="module")
def turned(embedder) -> Embedder:
    return whitened(embedder, pair_for(embedder.features_dim))


def embed(model: Embedder, **options: bool | Sequence[float]) -> torch.Tensor:
    return model.embed_tensor(images(), **options)  # type: ignore[arg-type]


def test_with_parts_joins_maps_of_the_same_backbone_and_nothing_else(embedder, bare):
    assert is_bare(bare) and not is_bare(embedder)
    assert bare.backbone is embedder.backbone and not bare.training
    assert bare.config.depths == (1, 2, 3) and bare.config.grids == (1, 2, 1)
    assert bare.dim == bare.features_dim == embed(bare).shape[1] == 32 + 4 * 48 + 192
    torch.testing.assert_close(embed(bare).norm(dim=1), torch.ones(3))
    plain = with_parts(embedder, [(2, 1), (1, 1)])
    assert plain.config.grids == () and plain.config.depths == (2, 1)
    parts = embed(bare)[:, :32]
    torch.testing.assert_close(F.normalize(embed(plain)[:, 48:]), F.normalize(parts))
    assert embedder.config.depths == () and embedder.maps is None  # the first is untouched


def test_with_parts_keeps_what_was_learned_of_the_pool():
    config = EmbedderConfig(
        backbone="test_resnet", pooling="gem", preprocess=Preprocess(size=(32, 32))
    )
    embedder = Embedder(config).train()
    with torch.no_grad():
        embedder.pool.p.fill_(5.0)  # type: ignore[union-attr]
    embedder.info = {"backbone": "x", "fit": {"by": "whitening"}}
    made = with_parts(embedder, [(1, 1)])
    assert made.config.pooling == "gem" and float(made.pool.p.detach()) == 5  # type: ignore[arg-type]
    assert made.training and made.info == {"backbone": "x"}


def test_parts_that_cannot_be_are_refused_before_anything_is_saved(embedder):
    """Their folder could not be loaded again."""
    for parts, text in (
        ([(1, 1), (1, 1)], "the same depth and grid twice"),
        ([(1, 8)], r"grids\.0 = 8"),
        ([(7, 1)], "has the depths 0 to 4"),
    ):
        with pytest.raises(UserError, match=text):
            with_parts(embedder, parts)


def test_a_projected_embedder_is_the_joined_maps_through_the_formula(bare):
    weight, bias = pair_for(bare.dim)
    made = projected(bare, (weight, bias))
    rows = embed(bare).numpy()
    np.testing.assert_allclose(embed(made).numpy(), rows @ weight.T + bias, atol=1e-5)
    np.testing.assert_allclose(embed(made).numpy(), project(rows, (weight, bias)), atol=1e-5)
    assert made.dim == made.features_dim == made.config.projection == 5
    assert made.config.whiten is None and not made.training
    assert not is_bare(made) and is_bare(bare) and bare.config.projection is None
    f, e = made(images())
    torch.testing.assert_close(f, e)


def test_a_whitened_embedder_is_unit_length_then_the_formula(embedder, turned):
    weight, bias = pair_for(embedder.features_dim)
    rows = F.normalize(embed(embedder)).numpy()
    np.testing.assert_allclose(embed(turned).numpy(), rows @ weight.T + bias, atol=1e-5)
    assert isinstance(turned.whitening, Whitening)
    assert turned.dim == 5 and turned.features_dim == embedder.features_dim == embedder.dim
    f, e = turned(images())
    assert f.shape == (3, turned.features_dim) and e.shape == (3, 5)
    assert not turned.training and embedder.config.whiten is None  # the first is untouched
    fresh = Whitening(4, 3)
    torch.testing.assert_close(fresh(torch.eye(4)), torch.eye(4, 3))


def test_scales_are_summed_before_one_projection_at_the_end(embedder, bare, turned):
    for plain, made in (
        (embedder, turned),
        (bare, whitened(bare, pair_for(bare.dim))),
    ):
        for scales in ((1.0,), (1, 0.5)):
            before = embed(plain, flip=True, scales=scales)
            expected = made.whitening(before)
            torch.testing.assert_close(embed(made, flip=True, scales=scales), expected)


def test_unwhitened_takes_the_end_off_and_nothing_else(embedder, bare, turned):
    turned = copy.deepcopy(turned)
    turned.info = {"fit": {"by": "whitening"}, "recipe": {}}
    plain = unwhitened(turned)
    assert plain.config == embedder.config and plain.dim == embedder.dim
    assert plain.fingerprint() == embedder.fingerprint()
    assert plain.info == {"recipe": {}} and turned.dim == 5 and "fit" in turned.info
    torch.testing.assert_close(embed(plain), embed(embedder))
    made = projected(bare, pair_for(bare.dim))
    assert unwhitened(made).fingerprint() == made.fingerprint()  # that one is not at the end
    again = whitened(plain, pair_for(embedder.dim, 3))
    assert again.dim == 3


def test_copies_share_no_projection(embedder, bare, turned):
    for made in (turned, projected(bare, pair_for(bare.dim))):
        for other in (copy.deepcopy(made), unwhitened(made)):
            before = embed(made)
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter += 1
            assert torch.equal(embed(made), before)
    weight, bias = pair_for(bare.dim)
    made = projected(bare, (weight, bias))
    weight[:], bias[:] = 0, 0
    assert made.projection.weight.abs().sum() > 0  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 1
    torch.testing.assert_close(embed(bare).norm(dim=1), torch.ones(3))
    assert torch.equal(next(bare.parameters()), next(embedder.parameters()))


@pytest.mark.parametrize("end", ["projection", "whitening", "both"])
def test_a_fitted_embedder_makes_the_round_trip(bare, tmp_path, end):
    made = bare
    if end != "whitening":
        made = projected(made, pair_for(made.dim, 7))
    if end != "projection":
        made = whitened(made, pair_for(made.dim, 4))
    made.info = {"fit": {"by": "hand"}}
    folder = made.save(tmp_path)
    loaded = Embedder.load(folder, "cpu")
    assert loaded.config == made.config and loaded.info == made.info and loaded.dim == made.dim
    assert loaded.fingerprint() == made.fingerprint() != bare.fingerprint()
    photo = picture(0, (40, 24))
    assert np.array_equal(loaded.embed(photo), made.embed(photo))
    assert loaded.embed([]).shape == (0, made.dim)
    assert f"{made.dim} dimensions" in (folder / "README.md").read_text()
    with torch.no_grad():
        list(loaded.parameters())[-1][0] += 1
    assert loaded.fingerprint() != made.fingerprint()


OLD = (
    '{"backbone":"test_resnet","last_stride":2,"pooling":"average","gem_p":3.0,"projection":null,'
    '"bn_neck":true,"preprocess":{"size":[32,32],"resize":"stretch","crop_margin":1.1428571428571428'
    ',"interpolation":"bilinear","mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]}}'
)


@pytest.mark.parametrize("projection", [None, 6])
def test_folders_from_before_there_were_depths_are_what_they_were(embedder, tmp_path, projection):
    """Written by hand in the old form; the fingerprint is over those very words and the weights."""
    words = OLD.replace('"projection":null', f'"projection":{json.dumps(projection)}')
    config = json.loads(words)
    model = embedder if projection is None else Embedder(EmbedderConfig(**config)).eval()
    model.save(tmp_path)
    (tmp_path / "embedder.json").write_text(json.dumps({"format": 1, "config": config}))
    loaded = Embedder.load(tmp_path, "cpu")
    assert loaded.config.depths == loaded.config.grids == () and loaded.maps is None
    assert loaded.config.written() == words
    torch.testing.assert_close(embed(loaded), embed(model))
    digest = hashlib.sha256(words.encode())
    state = load_file(tmp_path / "model.safetensors")
    for key in loaded.state_dict():
        digest.update(key.encode())
        digest.update(state[key].numpy().tobytes())
    assert loaded.fingerprint() == digest.hexdigest() == model.fingerprint()
    again = json.loads((loaded.save(tmp_path / "again") / "embedder.json").read_text())
    assert again["config"] == config


def test_what_is_not_in_use_is_not_spoken_of():
    plain = EmbedderConfig(backbone="test_resnet")
    assert not {"depths", "grids", "whiten"} & json.loads(plain.written()).keys()
    used = EmbedderConfig(backbone="test_resnet", depths=(1, 2), grids=(1, 2), whiten=4)
    content = json.loads(used.written())
    assert content["depths"] == [1, 2] and content["grids"] == [1, 2] and content["whiten"] == 4
    assert EmbedderConfig(**content) == used


def test_a_second_projection_and_one_of_another_width_are_refused(embedder, bare, turned):
    wrong = pair_for(bare.dim + 1)
    with pytest.raises(ValueError, match="ends in a projection already"):
        whitened(turned, pair_for(turned.dim))
    for make in (whitened, projected):
        with pytest.raises(ValueError, match=rf"weight \(5, {bare.dim + 1}\)"):
            make(bare, wrong)
        with pytest.raises(ValueError, match="weight"):
            make(bare, (pair_for(bare.dim)[0], np.zeros(4, np.float32)))
    for model in (embedder, turned, projected(bare, pair_for(bare.dim))):
        with pytest.raises(ValueError, match="has one, or no depths"):
            projected(model, pair_for(model.dim))
    with pytest.raises(UserError, match="whiten 9999: only"):
        Embedder(EmbedderConfig(backbone="test_resnet", whiten=9999))
