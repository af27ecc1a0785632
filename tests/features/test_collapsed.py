"""Collapsed features are named, and features that tell anything apart never are."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resight.data.imageset import ImageSet, normalise
from resight.data.sources import load_images
from resight.data.transforms import Preprocess
from resight.evaluate.protocols import Protocol
from resight.evaluate.scores import evaluate, evaluate_matrix
from resight.features.collapsed import NOTE, alike, collapsed
from resight.features.compute import EmbedOptions, embed_rows
from resight.features.store import Features
from resight.models.embedder import Embedder, EmbedderConfig
from resight.train.validate import Validation, in_words

OPTIONS = EmbedOptions(batch_size=16, workers=0)


def equal(rows: int = 80, dim: int = 64, noise: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(0)
    one = random.normal(size=dim)
    return (one + noise * random.normal(size=(rows, dim))).astype(np.float32)


def bfloat16(array: np.ndarray) -> np.ndarray:
    return torch.from_numpy(array).bfloat16().float().numpy()


@pytest.mark.parametrize(
    "features",
    [
        equal(),
        equal(noise=1e-6),
        equal(noise=1e-3),
        equal(noise=1e-6).astype(np.float16),
        bfloat16(equal(noise=1e-3)),
        equal() * np.linspace(0.1, 9, 80)[:, None],  # of one direction, whatever the length
        np.zeros((80, 64), np.float32),
        equal(5000),
        equal(2),
        np.ones((9, 1)),
    ],
    ids=str,
)
def test_collapsed(features):
    assert collapsed(features)


def test_good_features_are_not(embedder, shapes):
    """Even those of random weights, before whatever evens them out."""
    images = load_images(shapes)
    for model in (embedder, *untrained()):
        vectors, _ = embed_rows(model, images, options=OPTIONS)
        assert not collapsed(vectors) and not collapsed(vectors.astype(np.float16))
    trained = np.repeat(np.eye(40), 5, axis=0)  # as good as can be: one direction an object
    assert not collapsed(trained) and not collapsed(trained[::5])
    simplex = np.eye(64) - 1 / 64
    assert not collapsed(simplex)  # here all similarities of different objects are equal
    line = np.array([[1.0, 2], [-1, -2]] * 20)
    assert not collapsed(line)
    zeros = np.vstack([np.zeros((30, 64)), equal(30)])
    assert not collapsed(zeros)


def untrained() -> list[Embedder]:
    models = []
    for seed in range(4):
        torch.manual_seed(seed)
        config = EmbedderConfig(
            backbone="test_resnet", bn_neck=False, preprocess=Preprocess(size=(32, 32))
        )
        models.append(Embedder(config).eval())
    return models


@given(ratio=st.floats(0, 20), rows=st.integers(2, 60), seed=st.integers(0, 9))
def test_a_direction_that_all_share_is_no_collapse(ratio, rows, seed):
    """Twenty times as long as what differs: as of networks without a last normalisation."""
    random = np.random.default_rng(seed)
    own = random.normal(size=(rows, 32))
    assert not collapsed(own + ratio * np.ones(32))


def test_too_little_to_say(embedder):
    assert not collapsed(np.ones((1, 8))) and not collapsed(np.ones((0, 8)))
    assert not collapsed(np.ones((5, 8)), np.array([], int))
    bad = np.full((5, 8), np.nan)
    assert not collapsed(bad)
    bad[1:3] = 1
    assert collapsed(bad)


def test_only_some_rows_count_and_few_are_read():
    features = np.random.default_rng(0).normal(size=(100_000, 4))
    features[50_000:] = 1
    assert not collapsed(features) and collapsed(features, np.arange(50_000, 100_000))
    read = []

    class Counted:
        def __len__(self):
            return 10**6

        def __getitem__(self, key):
            read.append(key)
            return np.ones((key.stop - key.start, 3), np.float16)

    assert collapsed(Counted()) and len(read) == 512


def test_given_similarities():
    random = np.random.default_rng(0)
    assert alike(np.full((5, 7), 0.3)) and alike(np.full((5, 7), -40) + 1e-6 * np.eye(5, 7))
    assert alike(np.zeros((5, 7)))
    assert not alike(np.eye(500)) and not alike(random.normal(size=(5, 7)) * 1e-9)
    assert not alike(np.ones((1, 1))) and not alike(np.zeros((0, 3)))
    assert not alike(1 + 1e-4 * random.normal(size=(40, 40)))


def labelled(rows: int) -> ImageSet:
    table = pl.DataFrame({"path": [f"{k}.jpg" for k in range(rows)]})
    table = table.with_columns(object=pl.lit("o") + (pl.int_range(rows) // 4).cast(pl.String))
    return ImageSet(normalise(table), Path("/nowhere"))


@pytest.mark.parametrize("level", ["image", "object"])
def test_scores_say_so(level):
    good = np.random.default_rng(0).normal(size=(80, 64))
    for features, bad in ((equal(noise=1e-6), True), (good, False)):
        scores = evaluate(features, labelled(80), level=level)
        assert scores.collapsed == scores.summary()["collapsed"] == bad
        assert (NOTE in scores.notes()) == bad
        assert (NOTE in scores.summary().get("note", "")) == bad
    marked = np.vstack([good[:40], equal(40)])
    valid = np.arange(80) >= 40
    assert evaluate(marked, labelled(80), level=level, valid=valid).collapsed
    sharded = Features(labelled(80), (equal(64), equal(16)), np.ones(80, bool))
    assert evaluate(sharded, labelled(80), level=level).collapsed


def test_scores_of_given_similarities_say_so():
    protocol = Protocol("leave-one-out")
    table = labelled(8).table.with_columns(role=pl.Series(["query"] * 4 + ["gallery"] * 4))
    images = ImageSet(normalise(table.with_columns(object=pl.lit("o"))), Path())
    protocol = Protocol("query-gallery")
    assert evaluate_matrix(np.full((4, 4), 0.5), images, protocol).collapsed
    assert not evaluate_matrix(np.eye(4), images, protocol).collapsed


def test_validation_says_so(embedder, shapes):
    images = load_images(shapes)
    scores = Validation(images, workers=0).run(embedder)
    assert set(scores) == {"mAP", "R@1", "object_mAP", "object_R@1"}
    assert NOTE not in in_words(scores) and in_words({"mAP": 0.5}) == "mAP 50.0"
    dead = copy.deepcopy(embedder)
    with torch.no_grad():
        dead.neck.weight.zero_()
        dead.neck.bias.fill_(1)
    scores = Validation(images, workers=0).run(dead)
    assert scores["collapsed"] == 1 and in_words(scores).endswith(NOTE)
    assert "collapsed 100" not in in_words(scores)
