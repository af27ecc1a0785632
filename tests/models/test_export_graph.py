"""Graphs against torch: every kind of embedder, every form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from command import TINY
from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.export.graph import Form, rescaled, write_graph
from resight.models.export.parity import by_graph, by_torch, differences, drawn_pictures
from resight.models.export.session import start
from resight.models.pooling import _cells

EXACT = 1e-5  # between unit vectors: rounding alone


def made(**settings) -> Embedder:
    """A network with random weights and a neck that does something."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        values = {"backbone": TINY, "preprocess": Preprocess(size=(48, 64))} | settings
        model = Embedder(EmbedderConfig(**values)).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
                torch.nn.init.normal_(module.running_mean, std=0.2)
        if model.config.whiten:
            torch.nn.init.normal_(model.whitening.linear.weight)
            torch.nn.init.normal_(model.whitening.linear.bias, std=0.1)
    return model


def apart(model: Embedder, form: Form, pictures=None) -> float:
    """The largest difference of unit vectors, of pictures that differ far more than that."""
    pictures = pictures if pictures is not None else drawn_pictures(model.preprocess.size)
    ours = by_graph(model, start(write_graph(model, form)), form, pictures)
    theirs = by_torch(model, pictures, form.flip, form.scales)
    assert ours.dtype == np.float32 and ours.shape == (len(pictures), model.dim)
    assert differences(theirs[:-1], theirs[1:])["mean"] > 100 * EXACT
    return differences(ours, theirs)["largest"]


KINDS = {
    "plain": {},
    "no neck": {"bn_neck": False},
    "projection, GeM": {"projection": 16, "pooling": "gem", "gem_p": 2.5},
    "depths and grids": {"depths": (1, 2, 3), "grids": (1, 2, 3), "projection": 16},
    "depths, GeM": {"depths": (1, 3), "pooling": "gem"},
    "whitening": {"whiten": 8},
    "transformer": {"backbone": "test_vit", "preprocess": Preprocess(size=(64, 64))},
    "transformer, depths": {
        "backbone": "test_vit",
        "preprocess": Preprocess(size=(64, 64)),
        "depths": (1, 3),
    },
    "IBN": {"backbone": "resnet50_ibn_a", "preprocess": Preprocess(size=(32, 32))},
    "other mean": {"preprocess": Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(1 / 255,) * 3)},
}
FORMS = {
    "plain": Form(),
    "normalised outside": Form(raw=False),
    "flip": Form(flip=True),
    "scales": Form(scales=(1.0, 0.7071, 1.4142)),
    "any size": Form(dynamic=True),
    "any size, scales, flip": Form(dynamic=True, scales=(1.0, 0.5), flip=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_embedder(kind: str) -> None:
    assert apart(made(**KINDS[kind]), Form()) < EXACT


@pytest.mark.parametrize("form", FORMS)
def test_every_form(form: str) -> None:
    model = made(depths=(1, 2, 3), grids=(1, 2, 3), whiten=8)
    assert apart(model, FORMS[form]) < EXACT


def test_any_size_is_meant() -> None:
    form = Form(dynamic=True, scales=(1.0, 0.6))
    model = made(depths=(1, 2), grids=(2, 3))
    for size in ((48, 64), (80, 56), (33, 47)):
        assert apart(model, form, drawn_pictures(size)) < EXACT


def test_half_is_near() -> None:
    for settings in ({}, {"depths": (1, 2), "pooling": "gem", "projection": 16}):
        assert EXACT < apart(made(**settings), Form(half=True)) < 5e-3


def test_batches_of_any_size() -> None:
    model = made()
    session = start(write_graph(model))
    pictures = np.stack(drawn_pictures((48, 64), 5))
    (together,) = session.run(None, {"images": pictures})
    alone = np.concatenate([session.run(None, {"images": one[None]})[0] for one in pictures])
    assert differences(together, alone)["largest"] < EXACT
    assert session.run(None, {"images": pictures[:0]})[0].shape == (0, model.dim)


def test_the_embedder_stays_as_it_is() -> None:
    model = made()
    before, mode = model.fingerprint(), model.training
    write_graph(model, Form(half=True))
    assert model.fingerprint() == before and model.training == mode
    assert next(model.parameters()).dtype == torch.float32


def test_a_network_that_does_not_fit_is_named() -> None:
    model = made()
    model.pool = torch.nn.Hardtanh()  # gives a map, no vector
    with pytest.raises(UserError, match=f"backbone {TINY} can't be exported to ONNX"):
        write_graph(model)


@given(st.integers(1, 40), st.integers(1, 9))
def test_cells_are_torchs(size: int, n: int) -> None:
    lines = torch.rand(1, 1, 1, size, generator=torch.Generator().manual_seed(size))
    wanted = torch.nn.functional.adaptive_avg_pool2d(lines, (1, n))
    assert torch.allclose(lines @ _cells(size, n).T, wanted, atol=1e-6)


@given(st.integers(8, 70), st.integers(8, 70), st.floats(0.3, 2.5))
def test_rescaling_is_torchs(height: int, width: int, scale: float) -> None:
    images = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(height))
    wanted = torch.nn.functional.interpolate(
        images, scale_factor=scale, mode="bilinear", align_corners=False, antialias=True
    )
    ours = rescaled(images, scale)
    assert ours.shape == wanted.shape
    assert torch.allclose(ours, wanted, atol=2e-5)


def test_differences_see_what_is_wrong() -> None:
    model = made()
    pictures = drawn_pictures((48, 64))
    vectors = by_torch(model, pictures, False, (1.0,))
    assert differences(vectors, 3 * vectors)["largest"] < 1e-7  # of unit length
    assert differences(vectors, vectors[::-1])["largest"] > 1e-3
    vectors[0, 0] = np.nan
    assert differences(vectors, vectors)["largest"] == float("inf")
