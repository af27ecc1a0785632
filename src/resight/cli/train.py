"""`resight train`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from resight.cli.common import COLUMNS_HELP, IMAGES_HELP, LAYOUT_HELP


def train(
    images: Annotated[
        Path | None,
        typer.Argument(help=IMAGES_HELP + " With --data: a recipe, such as insclr."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help=IMAGES_HELP)] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="New run folder; by default runs/RECIPE-NAME."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to go on with, where it stopped.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Training story: ctl (default), smooth_ap, or insclr (no labels)."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Loss of smooth_ap: smooth_ap, ctl, triplet, contrastive, proxy_nca, "
            "fastap, blackbox_ap, arcface or ce."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Settings: a YAML file, or a name of 'resight recipes'.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="One setting.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="timm name, or resnet50_ibn_a.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="imagenet, auto, none, a hub name, a weights file, or an embedder."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH, or one number.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Instead of --epochs: about how long it may train.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS_HELP)] = None,
    layout: Annotated[str | None, typer.Option(help=LAYOUT_HELP)] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Reading processes.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad image.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in --out.")] = False,
    show: Annotated[bool, typer.Option("--show-settings", help="Print them and stop.")] = False,
) -> None:
    """Train an embedder, on images with known objects or (insclr) without any labels.

    With labels the best epoch is chosen on held-out training objects; test rows are never looked
    at. Without, RUN/evidence.html shows what was learned from.

    Examples:

      resight train insclr --data photos/

      resight train photos/ --out runs/shop

      resight train reid.csv -o runs/reid --backbone resnet50 --size 256x128 --set ids=16

      resight train photos/ -o runs/quick --minutes 10 --set ctl_weight=0

      resight train photos/ -o runs/ap --recipe smooth_ap --loss fastap --epochs 30

      resight train Stanford_Online_Products -o runs/sop --config smooth_ap_sop

      resight train --resume runs/shop
    """
    from resight.cli.common import parse_columns, parse_size, progress_bar, report_run
    from resight.data.sources import load_images
    from resight.errors import UserError
    from resight.settings import apply_pairs, dump_yaml
    from resight.train.catalogue import find_recipe, read_recipe
    from resight.train.recipes import settings_of

    if resume is not None:
        given: list[Any] = [
            images,
            data,
            out,
            recipe,
            loss,
            config,
            set_,
            backbone,
            weights,
            size,
            epochs,
        ]
        given += [minutes, seed]
        if any(value is not None for value in given):
            raise UserError(
                "--resume takes everything from the run: give no IMAGES and no settings"
            )
        from resight.train import start as starting

        with _resumable(resume), progress_bar("training", None, "batches") as advance:
            outcome = starting.resume(resume, _options(workers, strict), _watcher(advance))
        if starting.is_main():
            report_run(outcome)
        return
    if data is not None:
        recipe, config = _named(images, recipe, config)
        images = data
    path = find_recipe(config) if config is not None else None
    values: dict[str, Any] = read_recipe(path)[0] if path is not None else {}
    flags = {
        "recipe": recipe or ("smooth_ap" if loss is not None and "recipe" not in values else None),
        "loss": loss,
        "backbone": backbone,
        "weights": weights,
        "epochs": epochs,
        "seed": seed,
        "size": parse_size(size),
    }
    values = apply_pairs(values, set_ or []) | {k: v for k, v in flags.items() if v is not None}
    settings = settings_of(values, str(path) if path is not None and not set_ else "settings")
    if show:
        print(dump_yaml(settings), end="")
        return
    if images is None:
        raise UserError("IMAGES is missing: a folder, or a CSV or Parquet file")
    if out is None:
        out = _free(f"{settings.recipe}-{images.resolve().stem or 'run'}")
    image_set = load_images(images, columns=parse_columns(columns), layout=layout)
    from resight.cli.common import note
    from resight.train import start as starting

    starting.check_out(out, force)
    for line in image_set.notes:
        note(line)
    if minutes is not None:
        if minutes <= 0:
            raise UserError(f"--minutes {minutes:g}: must be above 0")
        settings, rate, clock = starting.within(settings, image_set, minutes, workers)
        what = f"{settings.epochs} epochs" + (" of each stage" if clock < minutes else "")
        note(f"{rate:.0f} images/s measured: {what} fit into {minutes:g} minutes")
        minutes = clock
    with _resumable(out), progress_bar("training", None, "batches") as advance:
        outcome = starting.start(
            settings,
            image_set,
            out,
            _options(workers, strict, minutes),
            _watcher(advance),
            force=force,
        )
    if starting.is_main():
        report_run(outcome)


def _named(
    word: Path | None, recipe: str | None, config: str | None
) -> tuple[str | None, str | None]:
    """Recipe and configuration when the argument is their name, as in "train insclr --data X"."""
    from resight.errors import UserError
    from resight.train.recipes import RECIPES

    if word is None:
        return recipe, config
    if recipe is not None or config is not None:
        raise UserError(f"{word}: with --data, name the recipe here or by an option, not by both")
    return (str(word), None) if str(word) in RECIPES else (None, str(word))


def _free(name: str) -> Path:
    """runs/NAME, or with the first number that is not taken."""
    folder = Path("runs") / name
    number = 2
    while folder.exists():
        folder = Path("runs") / f"{name}-{number}"
        number += 1
    return folder


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


def _options(workers: int | None, strict: bool, minutes: float | None = None) -> Any:
    from resight.train.loop import LoopOptions

    # The estimate may be wrong, on a machine that gets busy: a fifth more, and no longer.
    limit = 1.2 * minutes if minutes is not None else None
    return LoopOptions(workers=workers, strict=strict, max_minutes=limit)


def _watcher(advance: Any) -> Any:
    from resight.cli.common import note
    from resight.train.loop import Watcher

    return Watcher(step=advance, tell=note)
