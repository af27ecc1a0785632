"""What auto chooses, and runs that begin with a closed form."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from command import TINY, resight
from resight import Embedder
from resight.data.imageset import ImageSet
from resight.data.sources import load_images
from resight.data.splits import training_parts
from resight.models.embedder import EmbedderConfig
from resight.train import start
from resight.train.auto import choose
from resight.train.loop import LoopOptions, Stopped, Watcher
from resight.train.recipes import settings_of
from resight.train.recipes.graph import GraphSettings
from resight.train.rundir import Run
from resight.train.schedule import warmup_cosine
from resight.train.validate import Validation

SMALL = {
    "backbone": TINY, "weights": "none", "size": [32, 32], "steps": 6, "ids": 4, "images": 2,
}  # fmt: skip


def table(counts: list[int], **columns: list[str]) -> ImageSet:
    rows = [f"o{k}" for k, count in enumerate(counts) for _ in range(count)]
    values = {"path": [f"{n}.png" for n in range(len(rows))], "object": rows} | columns
    frame = pl.DataFrame(values)
    for name in ("camera", "split", "role", "box"):
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, pl.String).alias(name))
    return ImageSet(frame, Path("/none"), "table")


@pytest.mark.parametrize("counts", [[2] * 40, [5] * 40, [300] * 3, [1, 1, 2], [60] * 9 + [1] * 50])
def test_every_choice_is_an_ordinary_recipe_with_batches_that_exist(counts: list[int]) -> None:
    choice = choose(table(counts))
    settings = settings_of(choice.values, "auto")
    assert settings.recipe == "smooth_ap" and settings.start == "closed-form"
    assert 2 <= settings.ids <= max(2, sum(n > 1 for n in counts))
    assert settings.ids * settings.images <= 128
    assert 3 <= len(choice.lines) <= 6
    # What one run changes must not be the default of the next.
    choice.values["augment"]["flip"] = 9.0
    assert choose(table(counts)).values["augment"]["flip"] == 0.0


def test_without_labels_the_closed_form_and_the_graph() -> None:
    for choice in (choose(table([1] * 30)), choose(table([4] * 9), unlabelled=True)):
        settings = settings_of(choice.values, "auto")
        assert isinstance(settings, GraphSettings) and len(settings.stages) == 4
        assert settings.start == "closed-form" and settings.count == "auto"
        assert 3 <= len(choice.lines) <= 6


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [warmup_cosine(step, steps=200, warmup=0.05) for step in range(200)]
    assert rates[0] == pytest.approx(0.1, abs=0.01) and max(rates) == rates[9] > 0.98
    assert all(a > b for a, b in pairwise(rates[9:])) and rates[-1] < 1e-3
    assert warmup_cosine(0, steps=1) == 1


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("auto") / "run"
    settings = settings_of(choose(load_images(shapes)).values | SMALL, "auto")
    start.start(settings, load_images(shapes), out, LoopOptions(workers=0), Watcher())
    return out


def scores_of(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] in ("val", "refit")]


def test_the_start_takes_part_in_the_choice_of_the_best(finished: Path) -> None:
    scores = scores_of(finished)
    assert scores[0]["step"] == 0, "the start must be scored first"
    best = Run.open(finished).record["best"]
    assert best["mAP"] == pytest.approx(max(line["mAP"] for line in scores))
    parts = training_parts(load_images(finished / "images.parquet"), val_share=0.1, seed=0)
    begun = Validation(parts.val, workers=0).run(Embedder.load(finished / "start"))
    assert begun["mAP"] == pytest.approx(scores[0]["mAP"], abs=1e-4)
    kept = Embedder.load(finished)
    found = Validation(parts.val, workers=0).run(kept)
    if best["mAP"] < scores[0]["mAP"] + start.ENOUGH:
        whole = Embedder.load(finished / "start-whole")
        assert kept.fingerprint() == whole.fingerprint()
        images = kept.info["fit"]["images"]
        assert images == len(parts.train) + len(parts.val) > len(parts.train)
    else:
        assert found["mAP"] == pytest.approx(best["mAP"], abs=1e-4)
    assert not (finished / "fitting").exists()


def test_a_start_that_training_does_not_beat_is_fitted_to_all_training_objects(
    shapes: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "run", []
    values = choose(load_images(shapes)).values | SMALL | {"lr": 1e-12}
    settings = settings_of(values, "auto")
    watcher = Watcher(tell=told.append)
    start.start(settings, load_images(shapes), out, LoopOptions(workers=0), watcher)
    assert any("the closed form is kept, fitted to these objects as well" in line for line in told)
    assert Embedder.load(out).fingerprint() == Embedder.load(out / "start-whole").fingerprint()
    assert Embedder.load(out).info["recipe"]["start"] == "closed-form"


def test_the_run_says_what_was_chosen_as_ordinary_settings(finished: Path) -> None:
    settings = Run.open(finished).record["settings"]
    config = Embedder.load(finished / "start").config
    assert tuple(settings["depths"]) == config.depths and config.depths
    assert settings["projection"] == config.projection
    assert settings["steps"] == 6 and settings["backbone"] == TINY
    again = settings_of(settings, "settings").embedder()
    assert again.depths == config.depths and again.projection == config.projection


def test_a_neck_changes_nothing_at_first(shapes: Path, tmp_path: Path) -> None:
    values = SMALL | {"recipe": "ctl", "start": "closed-form", "steps": 0}
    runs = {}
    for neck in (True, False):
        out = tmp_path / str(neck)
        settings = settings_of(values | {"bn_neck": neck}, "settings")
        start.start(settings, load_images(shapes), out, LoopOptions(workers=0), Watcher())
        runs[neck] = Embedder.load(out)
    pictures = sorted(shapes.rglob("*.png"))[:20]
    with_neck, without = (runs[neck].embed(pictures) for neck in (True, False))
    np.testing.assert_allclose(with_neck, without, atol=2e-3)
    batch = torch.randn(8, 3, 32, 32)
    assert runs[True].train()(batch)[1].shape == (8, runs[True].dim)


def test_stopped_after_the_fit_leaves_an_embedder(shapes: Path, tmp_path: Path) -> None:
    """Ctrl-C in the first steps keeps the closed form; the run goes on as it would have."""
    import os
    import signal

    out = tmp_path / "run"

    def stop(done: int, total: int, text: str) -> None:
        if total == 6 and done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    settings = settings_of(choose(load_images(shapes)).values | SMALL, "auto")
    images = load_images(shapes)
    with pytest.raises(Stopped):
        start.start(settings, images, out, LoopOptions(workers=0), Watcher(step=stop))
    assert Embedder.load(out).info["fit"]["from"] == "labels"
    start.resume(out, LoopOptions(workers=0), Watcher())
    assert Run.open(out).record["finished"]


def test_killed_while_fitting_goes_on(shapes: Path, tmp_path: Path, finished: Path) -> None:
    """Between the run's record and its start, as after kill -9: nothing but features is there."""
    out = tmp_path / "run"
    settings = settings_of(choose(load_images(shapes)).values | SMALL, "auto")
    images = load_images(finished / "images.parquet")
    Run.create(out, settings.model_copy(update={"projection": None}), images)
    start.resume(out, LoopOptions(workers=0), Watcher())
    for file in ("start/model.safetensors", "embedder/model.safetensors"):
        assert (out / file).read_bytes() == (finished / file).read_bytes(), file


def test_killed_before_its_steps_are_known_a_run_keeps_to_its_minutes(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    settings = settings_of(choose(load_images(shapes)).values | SMALL | {"steps": None}, "auto")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(start, "timed", die)
        options = LoopOptions(workers=0, budget=0.2)
        start.start(settings, load_images(shapes), out, options, Watcher())
    assert (out / "start").is_dir() and not (out / "checkpoints").exists()
    start.resume(out, LoopOptions(workers=0), Watcher())
    assert Run.open(out).record["settings"]["steps"] is not None


def test_a_folder_without_labels_becomes_searchable(
    shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", str(shapes), "--unlabelled", "--out", str(out), "--workers", "0"]
    words += ["--minutes", "0.02"]
    assert resight(*words, "--backbone", TINY, "--weights", "none", "--size", "32") == 0
    err = capfd.readouterr().err
    assert "labels are not used (as asked)" in err
    embedder = Embedder.load(out)
    assert embedder.config.depths and embedder.info["fit"]["from"] == "images"


def test_few_labels_choose_and_all_images_count(shapes: Path, tmp_path: Path) -> None:
    images = load_images(shapes)
    known = pl.col("object").is_in(images.objects()[:6])
    some = images.table.with_columns(pl.when(known).then(pl.col("object")).alias("object"))
    settings = settings_of(choose(replace(images, table=some)).values | SMALL | {"steps": 0}, "a")
    out = tmp_path / "run"
    start.start(settings, replace(images, table=some), out, LoopOptions(workers=0), Watcher())
    # 60 images, of which those of the test objects and of the held-out objects are left out.
    fitted = Embedder.load(out).info["fit"]["images"]
    labelled = int(some["object"].is_not_null().sum())
    assert fitted > labelled - 10, "images without labels must count too"


def test_minutes_are_kept_for_all_together(shapes: Path, tmp_path: Path) -> None:
    import time

    settings = settings_of(
        choose(load_images(shapes)).values | SMALL | {"steps": None, "validate_every": 1}, "auto"
    )
    began = time.monotonic()
    options = LoopOptions(workers=0, budget=0.2, max_minutes=0.24)
    start.start(settings, load_images(shapes), tmp_path / "run", options, Watcher())
    assert time.monotonic() - began < 60
    steps = Run.open(tmp_path / "run").record["settings"]["steps"]
    assert steps is not None  # none at all on a machine where the start took the time


def test_old_settings_and_embedders_mean_what_they_meant() -> None:
    config = EmbedderConfig()
    assert "depths" not in json.loads(config.written())
    assert settings_of({"recipe": "ctl"}, "s").start == "weights"


def test_what_was_trained_is_fitted_again_and_kept_where_it_helps(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that scores nothing: then training is better, and the last fit has its say."""
    from resight.train import loop

    out = tmp_path / "run"
    values = choose(load_images(shapes)).values | SMALL | {"lr": 1e-3}
    real = loop.Validation.run

    def blind(self: Validation, embedder: Embedder) -> dict[str, float]:
        scores = real(self, embedder)
        return (
            {k: 0.01 * v for k, v in scores.items()} if not (out / "log.jsonl").exists() else scores
        )

    monkeypatch.setattr(loop.Validation, "run", blind)
    settings = settings_of(values, "auto")
    start.start(settings, load_images(shapes), out, LoopOptions(workers=0), Watcher())
    lines = scores_of(out)
    assert lines[-1]["kind"] == "refit" and lines[0]["mAP"] < 0.02
    best = Run.open(out).record["best"]
    assert best["mAP"] == pytest.approx(max(line["mAP"] for line in lines))
    kept = Embedder.load(out)
    assert (kept.config.whiten is not None) == (
        lines[-1]["mAP"] > max(s["mAP"] for s in lines[:-1])
    )
