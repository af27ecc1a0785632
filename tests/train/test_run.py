"""What a run leaves behind, which images it uses, and how it fails."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

import resight
from command import TINY
from resight.data.sources import load_images
from resight.data.splits import training_parts
from resight.errors import UserError
from resight.train import checkpoint, prepare, start
from resight.train.loop import LoopOptions, Watcher
from resight.train.recipes.ctl import CTLSettings
from resight.train.schedule import warmup_steps

FAST = {"backbone": TINY, "weights": "none", "size": (32, 32), "ids": 4, "images": 2, "epochs": 1}


def test_the_run_folder_says_everything(run_folder: Path, shapes: Path) -> None:
    record = json.loads((run_folder / "run.json").read_text())
    for key in ("command", "settings", "versions", "git", "data", "finished", "best", "seconds"):
        assert key in record
    assert record["data"]["images"] == 60 and record["data"]["objects"] == 12
    kinds = {json.loads(line)["kind"] for line in (run_folder / "log.jsonl").open()}
    assert kinds == {"train", "val"}
    assert list((run_folder / "tensorboard").glob("events*"))
    card = (run_folder / "embedder" / "README.md").read_text()
    assert TINY in card and "validation" in card


def test_test_objects_are_neither_trained_nor_validated_on(shapes: Path) -> None:
    parts = training_parts(load_images(shapes), val_share=0.2, seed=0)
    test = parts.images.where(pl.col("split") == "test")
    groups = [set(part.objects()) for part in (parts.train, parts.val, test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    assert all(groups)


def test_the_best_epoch_is_kept(shapes: Path, tmp_path: Path) -> None:
    """The scores in the card are the best of the log, and the embedder gives them again."""
    settings = CTLSettings(**FAST | {"epochs": 4}, lr=1e-3)
    out = tmp_path / "run"
    outcome = start.start(settings, load_images(shapes), out, LoopOptions(workers=0), Watcher())
    lines = [json.loads(line) for line in (out / "log.jsonl").open()]
    scores = {line["epoch"]: line["mAP"] for line in lines if line["kind"] == "val"}
    assert len(scores) == 4
    assert outcome.position.best == max(scores.values())
    embedder = resight.Embedder.load(out)
    assert embedder.info["validation"]["mAP"] == max(scores.values())
    val = outcome.parts.val
    val = replace(val, table=val.table.with_columns(pl.lit(None, pl.String).alias("split")))
    features = resight.embed_images(embedder, val)
    again = resight.measure(features, val).summary()["mAP"]
    assert again == pytest.approx(max(scores.values()), abs=1e-6)


def test_training_helps(shapes: Path, tmp_path: Path) -> None:
    settings = CTLSettings(**FAST | {"epochs": 12}, lr=2e-3, augment={"flip": 0, "erase": 0})
    out = tmp_path / "run"
    start.start(settings, load_images(shapes), out, LoopOptions(workers=0), Watcher())
    lines = [json.loads(line) for line in (out / "log.jsonl").open()]
    first, *_, last = [line["loss"] for line in lines if line["kind"] == "train"]
    assert last < 0.7 * first


def test_bad_images_are_skipped_and_named(shapes: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(shapes, copy)
    for folder in sorted(copy.iterdir()):
        (folder / "foto_ä0.png").write_bytes(b"no picture")
    told: list[str] = []
    settings, options = CTLSettings(**FAST), LoopOptions(workers=0)
    start.start(settings, load_images(copy), tmp_path / "run", options, Watcher(tell=told.append))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["skipped"] and all("foto_ä0.png" in path for path in record["skipped"])
    assert any("not an image" in line for line in told)
    with pytest.raises(UserError, match="--strict"):
        strict = LoopOptions(workers=0, strict=True)
        start.start(settings, load_images(copy), tmp_path / "strict", strict, Watcher())


def test_a_loss_that_is_not_finite_stops_with_one_line(shapes: Path, tmp_path: Path) -> None:
    settings = CTLSettings(**FAST | {"epochs": 3, "lr": 1e30})
    with pytest.raises(UserError) as caught:
        options = LoopOptions(workers=0)
        start.start(settings, load_images(shapes), tmp_path / "run", options, Watcher())
    (line,) = str(caught.value).splitlines()
    assert re.match(
        r"step \d+, epoch \d: .*(loss|ce|ctl).* is not finite; images object \d\d/", line
    )
    assert "and 5 more; lower the learning rate (--set lr=...)" in line
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert ("is whole" in line) == last.exists()
    if last.exists():
        state = checkpoint.load(last)["model"]
        assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_two_objects_are_enough(shapes: Path, tmp_path: Path) -> None:
    images = load_images(shapes)
    few = images.where(pl.col("object").is_in(images.objects()[:4]))
    out = tmp_path / "run"
    start.start(CTLSettings(**FAST), few, out, LoopOptions(workers=0), Watcher())
    assert (out / "embedder" / "embedder.json").is_file()


def test_further_training_starts_from_an_embedder(
    run_folder: Path, shapes: Path, tmp_path: Path
) -> None:
    parts = training_parts(load_images(shapes), val_share=0.1, seed=0)
    settings = CTLSettings(**FAST | {"weights": str(run_folder)})
    story = prepare.build_story(prepare.with_rate(settings, print), parts, lambda line: None)
    old = resight.Embedder.load(run_folder, "cpu").state_dict()
    assert all(torch.equal(value, old[key]) for key, value in story.embedder.state_dict().items())


def test_the_schedule_of_the_paper() -> None:
    """Linear over 10 epochs, a tenth at 40, a hundredth at 70 (of 120)."""
    warmup, milestones = CTLSettings().schedule()
    rates = [warmup_steps(e, warmup=warmup, milestones=milestones) for e in range(120)]
    assert rates[0] == 0.1 and rates[4] == 0.5 and rates[9] == rates[39] == 1
    assert rates[40] == pytest.approx(0.1) and rates[69] == pytest.approx(0.1)
    assert rates[70] == pytest.approx(0.01) == pytest.approx(rates[119])
    shares = CTLSettings(epochs=20, milestones=[0.5, 18])
    assert shares.schedule() == (1, [10, 18])


def test_minutes_become_epochs(shapes: Path) -> None:
    count, rate = prepare.epochs_for(CTLSettings(**FAST), load_images(shapes), 0.1, 0)
    assert count >= 1 and rate > 0


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(48, 48, (96, 96)), (640, 480, (224, 224)), (128, 384, (256, 128)), (300, 100, (128, 256)),
     (64, 128, (128, 64))],
)  # fmt: skip
def test_the_input_size_follows_the_images(
    tmp_path: Path, width: int, height: int, expected: tuple[int, int]
) -> None:
    from PIL import Image

    for name in "ab":
        (tmp_path / name).mkdir()
        for shot in range(2):
            Image.new("RGB", (width, height)).save(tmp_path / name / f"{shot}.png")
        (tmp_path / name / "broken.png").write_bytes(b"")
    told: list[str] = []
    settings = prepare.with_size(CTLSettings(), load_images(tmp_path), told.append)
    assert settings.size == expected and "from the images' shapes" in told[0]
    given = prepare.with_size(CTLSettings(size=(32, 64)), load_images(tmp_path), told.append)
    assert given.size == (32, 64)


def test_weights_that_fit_in_part(shapes: Path, tmp_path: Path) -> None:
    """Refused, with the way out; allowed, they are reported key by key."""
    from safetensors.torch import save_file

    parts = training_parts(load_images(shapes), val_share=0.1, seed=0)
    settings = CTLSettings(**FAST)
    state = prepare.build_story(
        prepare.with_rate(settings, print), parts, lambda line: None
    ).embedder.backbone.state_dict()
    state = {key: value.contiguous() + 1 for key, value in state.items()}
    dropped = next(iter(state))
    del state[dropped]
    save_file(state, tmp_path / "w.safetensors")
    given = {"weights": str(tmp_path / "w.safetensors")}
    with pytest.raises(UserError, match="partial_weights=true"):
        prepare.build_story(CTLSettings(**FAST | given, lr=1e-3), parts, lambda line: None)
    told: list[str] = []
    allowed = CTLSettings(**FAST | given, partial_weights=True)
    story = prepare.build_story(prepare.with_rate(allowed, print), parts, told.append)
    assert any(dropped in line and "not in the file" in line for line in told)
    loaded = story.embedder.backbone.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_when_time_is_up_the_epoch_is_the_last(shapes: Path, tmp_path: Path) -> None:
    """It is validated and saved like any last one, and the run counts as finished."""
    out = tmp_path / "run"
    settings = CTLSettings(**FAST | {"epochs": 500}, validate_every=400)
    told: list[str] = []
    options = LoopOptions(workers=0, max_minutes=0.02)
    outcome = start.start(settings, load_images(shapes), out, options, Watcher(tell=told.append))
    assert 1 <= outcome.position.epoch < 400
    assert any("time is up" in line for line in told)
    assert outcome.position.best_epoch == outcome.position.epoch
    assert start.Run.open(out).record["finished"]
