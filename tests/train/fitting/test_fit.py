"""Fitting, end to end: what is chosen, to what it is fitted, and interrupted calls."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from command import TINY
from resight.data.imageset import ImageSet, normalise
from resight.data.sources import load_images
from resight.errors import UserError
from resight.features import write
from resight.features.compute import EmbedOptions
from resight.features.store import Features
from resight.features.write import embed_images
from resight.models.closed_form import discriminant, project, whitening
from resight.models.depths import depths_of
from resight.models.embedder import Embedder
from resight.models.fitted import with_parts
from resight.models.moments import moments, spread
from resight.models.open import open_embedder
from resight.train.fitting.candidates import Wish, with_labels
from resight.train.fitting.fit import Fitted, fit, fit_features
from resight.train.fitting.plan import Plan, plan_of, plan_rows
from resight.train.fitting.start import WORK, closed_form_start
from resight.train.loop import LoopOptions, Watcher
from resight.train.recipes.ctl import CTLSettings
from resight.train.validate import held_out_scores

OPTIONS = EmbedOptions(batch_size=16, workers=0)


@pytest.fixture(scope="module")
def backbone() -> Embedder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_embedder(TINY, weights="none", size=(32, 32), device="cpu")


@pytest.fixture(scope="module")
def images(shapes: Path) -> ImageSet:
    return load_images(shapes)


@pytest.fixture(scope="module")
def plan(backbone: Embedder, images: ImageSet) -> Plan:
    return plan_rows(backbone, images)


@pytest.fixture(scope="module")
def chosen(backbone: Embedder, plan: Plan) -> Fitted:
    """Of all candidates, fitted to the rows that did not choose."""
    return fit(backbone, plan, again=False, options=OPTIONS)


def rows_of(embedder: Embedder, images: ImageSet) -> np.ndarray:
    return np.asarray(embed_images(embedder, images, options=OPTIONS)[:])


def state(embedder: Embedder) -> dict[str, torch.Tensor]:
    return embedder.state_dict()


def same(a: Embedder, b: Embedder) -> bool:
    """Bit for bit."""
    return a.config == b.config and a.fingerprint() == b.fingerprint()


def test_the_best_of_all_candidates_is_chosen_by_what_it_does(backbone, plan, chosen):
    found = depths_of(backbone.backbone, (32, 32))
    objects = len(set(plan.objects[plan.fit].tolist()))
    ways = with_labels(found, int(plan.fit.sum()), objects, Wish())
    assert {one.candidate for one in chosen.table} == set(ways) and len(ways) == len(chosen.table)
    scores = [one.scores["mAP"] for one in chosen.table]
    assert scores == sorted(scores, reverse=True)
    assert chosen.chosen == chosen.table[0].candidate
    first = next(way for way in ways if [one for one in chosen.table if one.candidate == way and
                 one.scores["mAP"] == scores[0]])  # fmt: skip
    assert chosen.chosen == first  # of equals
    held = plan.images.rows(np.flatnonzero(plan.val).tolist())
    scored = held_out_scores(rows_of(chosen.embedder, held), held)
    assert scored == pytest.approx(chosen.table[0].scores, abs=1e-6)
    assert chosen.embedder.info["fit"]["validation"] == chosen.table[0].scores
    assert backbone.config.depths == () and "fit" not in backbone.info  # untouched


def test_it_is_fitted_to_the_rows_asked_for_and_to_no_other(backbone, plan, chosen):
    again = fit(backbone, plan, again=True, options=OPTIONS)
    assert again.chosen == chosen.chosen and again.table == chosen.table
    way = again.chosen
    assert way.method in ("discriminant", "whitening")
    rows = rows_of(with_parts(backbone, way.parts), plan.images)
    for made, used in ((chosen, plan.fit), (again, plan.fit | plan.val)):
        total = moments(rows, used)
        pair = whitening(total, way.dims)
        if way.method == "discriminant":
            pair = discriminant(
                total, spread(rows, plan.objects, used), way.dims, shrink=way.shrink
            )
        weight = state(made.embedder)["projection.weight"].numpy()
        np.testing.assert_allclose(weight, pair[0], rtol=1e-4, atol=1e-4 * np.abs(pair[0]).max())
        assert made.embedder.info["fit"]["images"] == used.sum()
        variances = project(rows[used], pair).var(0)
        np.testing.assert_allclose(made.variances, variances, rtol=1e-3, atol=1e-7)
        assert made.embedder.info["fit"]["fingerprint"] == plan.fingerprint
    assert not np.allclose(*(state(x.embedder)["projection.bias"].numpy() for x in (chosen, again)))


def test_a_fitted_embedder_is_fitted_again_from_its_depths(plan, chosen):
    again = fit(chosen.embedder, plan, again=False, options=OPTIONS)
    assert same(again.embedder, chosen.embedder)


def test_without_labels_the_default_stands(backbone, images):
    plan = plan_rows(backbone, images, unlabelled=True)
    made = fit(backbone, plan, options=OPTIONS)
    assert made.chosen.method == "neighbours" and made.table == ()
    assert made.embedder.info["fit"]["from"] == "images"
    assert made.embedder.info["fit"]["images"] == 60 and made.embedder.dim == 15
    out = rows_of(made.embedder, images)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose((out**2).sum(1).mean(), 1, rtol=1e-3)
    with pytest.raises(UserError, match="discriminant needs labels"):
        fit(backbone, plan, wish=Wish(method="discriminant"), options=OPTIONS)


def test_wishes_hold(backbone, plan):
    wish = Wish("whitening", depths=(3, 1), grid=2, dims=7)
    made = fit(backbone, plan, wish=wish, options=OPTIONS)
    config = made.embedder.config
    assert config.depths == (3, 1) and config.grids == (2, 2) and config.projection == 7
    assert made.embedder.dim == 7 and made.chosen.method == "whitening"
    raw = fit(backbone, plan, wish=Wish("raw", depths=(2,)), options=OPTIONS)
    assert raw.variances is None and raw.embedder.config.projection is None
    for depths, text in (((2, 2), "twice"), ((1, 9), "has the depths 0 to 4")):
        with pytest.raises(UserError, match=text):
            fit(backbone, plan, wish=Wish(depths=depths), options=OPTIONS)


def test_summed_scales_put_the_projection_at_the_end(backbone, plan):
    options = replace(OPTIONS, scales=(1.0, 0.5))
    made = fit(backbone, plan, wish=Wish("whitening", depths=(2, 3)), options=options)
    assert (
        made.embedder.config.projection is None and made.embedder.config.whiten == made.chosen.dims
    )
    out = embed_images(made.embedder, plan.images, options=options)[:]
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)


@pytest.fixture
def many(shapes: Path) -> Iterator[ImageSet]:
    """120 images that are not test, in two shards."""
    table = load_images(shapes).table.drop("box")
    parts = [
        table.with_columns(pl.Series("box", [box] * 60, dtype=pl.List(pl.Float64)))
        for box in ([0.0, 0, 48, 48], [0.0, 0, 30, 40], [10.0, 5, 48, 48])
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "SHARD_ROWS", 64)
        yield ImageSet(normalise(pl.concat(parts)), shapes, "crops")


def test_an_interrupted_fit_goes_on_and_is_the_same_bit_for_bit(
    backbone, many, tmp_path, monkeypatch
):
    plan = plan_rows(backbone, many)
    whole = fit(backbone, plan, out=tmp_path / "whole", options=OPTIONS)
    written: list[int] = []
    real = write._write_shard

    def stop(out, number, *rest):
        if number:
            raise KeyboardInterrupt
        written.append(number)
        real(out, number, *rest)

    monkeypatch.setattr(write, "_write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(backbone, plan, out=tmp_path / "cut", options=OPTIONS)
    assert written == [0] and (tmp_path / "cut" / "shard-00000.npy").is_file()

    def go_on(out, number, *rest):
        written.append(number)
        real(out, number, *rest)

    monkeypatch.setattr(write, "_write_shard", go_on)
    made = fit(backbone, plan, out=tmp_path / "cut", options=OPTIONS)
    assert written == [0, 1]  # the first is not made again
    assert same(made.embedder, whole.embedder) and made.table == whole.table
    assert made.embedder.info == whole.embedder.info


def test_a_trained_embedder_gets_its_projection_at_the_end(run_folder, images, tmp_path):
    embedder = Embedder.load(run_folder, "cpu")
    plan = plan_rows(embedder, images)
    made = fit(embedder, plan, options=OPTIONS)
    assert {one.candidate.depths for one in made.table} == {()}
    config = made.embedder.config
    assert config.depths == embedder.config.depths == () and config.bn_neck
    if made.chosen.method != "raw":
        assert config.whiten == made.embedder.dim == made.chosen.dims
    features = embed_images(embedder, images, tmp_path / "f", options=OPTIONS)
    other = fit_features(embedder, Features.load(tmp_path / "f"), plan)
    assert other.chosen == made.chosen and len(features) == 60
    np.testing.assert_allclose(
        rows_of(other.embedder, images), rows_of(made.embedder, images), atol=1e-4
    )
    forced = fit(embedder, plan, wish=Wish("whitening", dims=5), options=OPTIONS).embedder
    assert forced.config.whiten == 5 and "recipe" in forced.info
    twice = fit(forced, plan, wish=Wish("whitening", dims=5), options=OPTIONS).embedder
    assert same(twice, forced)  # the first projection is taken off
    with pytest.raises(UserError, match="went through a fitted projection already"):
        fit_features(forced, features, plan)
    with pytest.raises(UserError, match="depths and grid are chosen of a backbone as it comes"):
        fit(embedder, plan, wish=Wish(depths=(1,)), options=OPTIONS)


def test_one_that_was_trained_on_joined_depths_is_fitted_behind_its_vectors(chosen, plan):
    """As `train --recipe auto` ends: joined maps, a projection, and a recipe in what is known."""
    trained = chosen.embedder
    known = dict(trained.info)
    trained.info = known | {"recipe": {"recipe": "ctl"}}
    try:
        made = fit(trained, plan, wish=Wish("whitening", dims=5), options=OPTIONS)
        all_of_them = fit(trained, plan, again=False, options=OPTIONS)
    finally:
        trained.info = known
    assert made.embedder.config.whiten == 5
    assert made.embedder.config.projection == trained.config.projection
    assert all_of_them.table and all_of_them.chosen == all_of_them.table[0].candidate


def test_images_that_are_all_the_same_are_one_clear_line(backbone, shapes, tmp_path):
    photo = min(shapes.rglob("*.png"))
    for k in range(6):
        (tmp_path / f"o{k // 3}").mkdir(exist_ok=True)
        shutil.copy(photo, tmp_path / f"o{k // 3}" / f"{k}.png")
    plan = plan_rows(backbone, load_images(tmp_path), unlabelled=True)
    with pytest.raises(UserError, match="all vectors are the same"):
        fit(backbone, plan, options=OPTIONS)


@pytest.mark.parametrize("neck", [True, False])
def test_a_start_is_the_closed_form_and_a_neck_changes_nothing(images, tmp_path, neck):
    from resight.data.splits import training_parts

    settings = CTLSettings(
        backbone=TINY, weights="none", size=(32, 32), bn_neck=neck, start="closed-form"
    )
    plan = plan_of(training_parts(images, val_share=0.2, seed=0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = closed_form_start(settings, plan, tmp_path, LoopOptions(workers=0), Watcher())
    assert made.embedder.config == made.settings.embedder().model_copy(
        update={"pooling": made.embedder.config.pooling}
    )
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fitted = made.fitted.embedder.embed_tensor(x).cpu()
    torch.testing.assert_close(made.embedder.embed_tensor(x).cpu(), fitted, rtol=1e-4, atol=1e-5)
    assert not (tmp_path / WORK).exists()
    assert made.embedder.info["fit"]["images"] == plan.fit.sum()  # val rows are not fitted to
