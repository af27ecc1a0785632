"""`resight train`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from resight.cli import options


def train(
    images: options.MaybeImages = None,
    out: Annotated[Path | None, options.out("the run folder; by default runs/RECIPE-NAME.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to go on with, where it stopped.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="auto (default), ctl, smooth_ap; without labels graph or insclr."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="weights as they are, or closed-form: fitted first (auto does that)."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Loss of smooth_ap: smooth_ap, ctl, triplet, contrastive, proxy_nca, "
            "fastap, blackbox_ap, arcface or ce; or a Python file with one of yours."
        ),
    ] = None,
    config: options.Config = None,
    set_: options.Set = None,
    backbone: options.Backbone = None,
    weights: options.TrainedWeights = None,
    size: options.Size = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Instead: batches, on a cosine.")] = None,
    minutes: options.Minutes = None,
    unlabelled: options.Unlabelled = False,
    sources: Annotated[
        str | None,
        typer.Option(
            help="Without labels: a column that says where an image is from (camera, artist, "
            "session), when images of one source look alike."
        ),
    ] = None,
    seed: options.Seed = None,
    columns: options.Columns = None,
    layout: options.Layout = None,
    device: options.Device = None,
    workers: options.Workers = None,
    strict: options.Strict = False,
    force: options.Force = False,
    json_: options.Json = False,
    show: Annotated[bool, typer.Option("--show-settings", help="Print them and stop.")] = False,
) -> None:
    """Train an embedder, on images with known objects or without any labels.

    By itself it fits a closed form first: from then on the run can be used, and Ctrl-C keeps it.
    Then it trains from there for the time given. With labels the best is chosen on held-out
    training objects; test rows are never looked at. Never worse than its start there.

    Examples:

      resight train photos/ --out runs/shop

      resight train photos/ --minutes 20

      resight train photos/ --unlabelled

      resight train icons.csv --unlabelled --sources artist

      resight train photos/ --recipe insclr

      resight train reid.csv -o runs/reid --recipe ctl --backbone resnet50 --size 256x128

      resight train photos/ -o runs/ctl --recipe ctl --start closed-form --minutes 10

      resight train photos/ -o runs/ap --recipe smooth_ap --loss fastap --epochs 30

      resight train photos/ -o runs/mine --loss my_loss.py --start closed-form --minutes 10

      resight train Stanford_Online_Products -o runs/sop --config smooth_ap_sop

      resight train --resume runs/shop
    """
    from resight.cli.common import (
        free,
        note,
        of_set,
        parse_columns,
        parse_size,
        progress_bar,
        report_run,
        take_device,
    )
    from resight.data.sources import load_images
    from resight.errors import UserError
    from resight.settings import dump_yaml
    from resight.train.launch import is_automatic, launch, loop_options, requested
    from resight.train.rundir import check_out

    take_device(device)
    if resume is not None:
        given: list[Any] = [
            images,
            out,
            recipe,
            start,
            steps,
            loss,
            config,
            set_,
            backbone,
            weights,
            size,
            epochs,
        ]
        given += [minutes, seed, sources]
        if any(value is not None for value in given):
            raise UserError(
                "--resume takes everything from the run: give no IMAGES and no settings"
            )
        from resight.train import start as starting

        with _resumable(resume), progress_bar("training", None, "batches") as advance:
            outcome = starting.resume(resume, loop_options(workers, strict), _watcher(advance))
        if starting.is_main():
            report_run(outcome, None, json_)
        return
    automatic, image_set = is_automatic(recipe, config, loss), None
    if out is not None and not show:
        check_out(out, force)  # before anything is read
    if images is not None and (automatic or not show):
        image_set = load_images(
            images, columns=parse_columns(columns), layout=layout, unlabelled=unlabelled
        )
    request = requested(
        image_set,
        recipe=recipe,
        config=config,
        pairs=set_ or [],
        minutes=minutes,
        unlabelled=unlabelled,
        start=start,
        loss=loss,
        backbone=backbone,
        weights=weights,
        epochs=epochs,
        steps=steps,
        seed=seed,
        sources=sources,
        size=parse_size(size),
    )
    for line in request.lines:
        note(line)
    if show:
        print(dump_yaml(request.settings), end="")
        return
    if images is None or image_set is None:
        raise UserError("IMAGES is missing: a folder, or a CSV or Parquet file")
    if out is None:
        name = (
            f"{'auto' if automatic else request.settings.recipe}-{images.resolve().stem or 'run'}"
        )
        out = free(Path("runs") / name)
    from resight.train import start as starting

    for line in image_set.notes:
        note(line)
    with _resumable(out), progress_bar("training", None, "batches") as advance:
        outcome = launch(
            request,
            image_set,
            out,
            workers=workers,
            strict=strict,
            force=force,
            watcher=_watcher(advance),
        )
    if starting.is_main():
        report_run(outcome, of_set(images, columns, layout, unlabelled), json_)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """After a signal, say how to go on."""
    from resight.cli.common import note
    from resight.train.loop import Stopped

    try:
        yield
    except Stopped:
        note(f"stopped; all is kept. Go on with: resight train --resume {folder}")
        raise typer.Exit(130) from None


def _watcher(advance: Any) -> Any:
    from resight.cli.common import note
    from resight.train.loop import Watcher

    return Watcher(step=advance, tell=note)
