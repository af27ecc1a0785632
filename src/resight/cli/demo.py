"""`resight demo`: every verb once, on one set of images. `make demo` runs it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from resight.cli import options
from resight.cli.common import note


def demo(
    context: typer.Context,
    images: Annotated[
        Path | None, typer.Argument(help=options.IMAGES_HELP + " Without it a set is drawn.")
    ] = None,
    out: Annotated[Path, options.out("all of it.")] = Path("demo"),
    minutes: options.Minutes = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    size: options.Size = None,
    columns: options.Columns = None,
) -> None:
    """Run the whole way on one set of images: check, train, embed, index, search, measure.

    Trains for 9 minutes, at 96 pixels, on a light backbone, unless told otherwise. Prints each
    command before it runs it, so that you can go on from any of them. Images without labels are
    not trained on: they are indexed and searched with the backbone as it is.

    Examples:

      resight demo

      resight demo photos/ --out demo/photos --minutes 10
    """
    from resight.errors import UserError
    from resight.files import fresh_folder, write_text

    if images is not None and images.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{images}: lies inside {out}, which the demo replaces; give another --out")
    obstacle = _obstacle(str(images), columns) if images is not None else None  # reads it all
    run_verb = partial(_run, context.find_root().command)
    mark = out / ".resight-demo"
    fresh_folder(out, "a demo", mark=mark.name, force=True)
    out.mkdir(parents=True, exist_ok=True)
    write_text(mark, "resight demo may replace this folder\n")
    source = str(images) if images is not None else _draw(run_verb, out)
    backbone, weights = _affordable(backbone, weights)
    extra = ["--columns", columns] if columns else []
    check, run, searched = out / "check.png", out / "run", out / "searched.parquet"
    run_verb("data", "check", source, "--sheet", str(check), *extra)
    if obstacle is None:
        run_verb(
            *("train", source, "--out", str(run), "--minutes", f"{minutes or 9:g}"),
            *(
                "--backbone",
                backbone,
                "--weights",
                weights,
                "--size",
                size or "96",
                *_short(weights),
            ),
            *extra,
        )
        model, settings, measured = str(run), [], []
        labelled = _roles(str(run / "images.parquet"), None, searched)
    else:
        note(f"\nno training, the backbone is used as it is: {obstacle}")
        model, settings = backbone, ["--weights", weights, "--size", size or "96"]
        measured = [source, *extra]
        labelled = _roles(source, columns, searched)
    run_verb("embed", model, str(searched), *settings, "--out", str(out / "features"))
    level = "object" if labelled else "image"
    run_verb("index", str(out / "features"), "--out", str(out / "gallery"), "--level", level)
    sheet = out / "search.png"
    run_verb(
        *("search", str(out / "gallery"), str(searched), "--hits", "6", "--limit", "12"),
        *("--sheet", str(sheet)),
    )
    made = {"the doctor's pictures": check, "the trained embedder": run / "embedder"}
    made |= {"the gallery": out / "gallery", "a search": sheet}
    if labelled:
        try:
            run_verb("evaluate", model, *measured, *settings, "--out", str(out / "evaluation"))
        except UserError as reason:
            note(f"not measured: {reason}")
        made["the report"] = out / "evaluation" / "report.html"
    note("\nWhat was made:")
    for what, path in made.items():
        if path.exists():
            print(f"  {what + ':':24}{path}")


def _run(root: Any, *words: str) -> None:
    """Print a command, and run it in this process."""
    note(f"\n$ resight {shlex.join(words)}")
    status = root.main(list(words), standalone_mode=False)
    if words[:2] != ("data", "check") and status:  # the doctor's 1 says that it found something
        raise typer.Exit(status)


def _draw(run_verb: Callable[..., None], out: Path) -> str:
    run_verb("demo-data", "--out", str(out / "images"))
    return str(out / "images" / "index.csv")


def _affordable(backbone: str | None, weights: str | None) -> tuple[str, str]:
    """A network that learns something in a few minutes, and its weights.

    A pretrained ResNet-18 where its weights can be had; else timm's smallest ResNet, which is
    small enough to be trained from nothing.
    """
    if weights is not None:
        return backbone or "resnet18", weights
    from resight.errors import UserError
    from resight.models.backbones import check_backbone
    from resight.models.weights import hub_weights

    wanted = backbone or "resnet18"
    check_backbone(wanted)
    try:
        hub_weights(wanted, "imagenet")
    except UserError as reason:
        note(f"{reason}")
        note("So the demo trains from nothing, which needs more data and time to be good.")
        return backbone or "test_resnet", "none"
    return wanted, "imagenet"


def _short(weights: str) -> list[str]:
    """Settings for a short training on few images."""
    lr = "2e-3" if weights == "none" else "5e-4"
    pairs = [f"lr={lr}", "milestones=[0.7, 0.9]", "ids=12", "augment.flip=0"]
    pairs += ["augment.erase=0.2", "validate_every=4"]
    return [word for pair in pairs for word in ("--set", pair)]


def _obstacle(source: str, columns: str | None) -> str | None:
    """Why these images can't be trained on, if so."""
    from resight.cli.common import parse_columns
    from resight.data.sources import load_images
    from resight.data.splits import training_parts
    from resight.errors import UserError

    images = load_images(source, columns=parse_columns(columns))
    try:
        training_parts(images, val_share=0.1, seed=0)
    except UserError as reason:
        return str(reason)
    return None


def _roles(source: str, columns: str | None, target: Path) -> bool:
    """Write what is searched: the test rows if there are any; whether objects are known.

    Where the rows have no roles, one image of each object asks, and the rest answer.
    """
    import polars as pl

    from resight.cli.common import parse_columns
    from resight.data.sources import load_images

    images = load_images(source, columns=parse_columns(columns))
    if (images.table["split"] == "test").any():
        images = images.where(pl.col("split") == "test")
    table, known = images.table, bool(images.objects())
    if known and not table["role"].is_in(["query", "gallery"]).any():
        asks = pl.col("object").is_first_distinct() & pl.col("object").is_duplicated()
        asks = asks & pl.col("object").is_not_null()
        role = pl.when(asks).then(pl.lit("query")).otherwise(pl.lit("gallery"))
        table = table.with_columns(role.alias("role"))
    replace(images, table=table).write(target)
    return known
