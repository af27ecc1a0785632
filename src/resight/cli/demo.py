"""`resight demo`: every verb once, on one set of images. `make demo` runs it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from resight.cli.common import COLUMNS_HELP, IMAGES_HELP, note


def demo(
    images: Annotated[
        Path | None, typer.Argument(help=IMAGES_HELP + " Without it a set is drawn.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where everything goes.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="About how long it may train.")] = 7.0,
    backbone: Annotated[
        str | None, typer.Option(help="timm name; by default resnet18, or a tiny one offline.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="By default imagenet, or none where the hub is out of reach.")
    ] = None,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH, or one number.")] = "96",
    columns: Annotated[str | None, typer.Option(help=COLUMNS_HELP)] = None,
) -> None:
    """Run the whole way on one set of images: check, train, embed, index, search, measure.

    Prints each command before it runs it, so that you can go on from any of them. Images
    without labels are not trained on: they are indexed and searched with the backbone as it is.

    Examples:

      resight demo

      resight demo photos/ --out demo/photos --minutes 10
    """
    from resight.files import fresh_folder, write_text

    mark = out / ".resight-demo"
    fresh_folder(out, "a demo", mark=mark.name, force=True)
    out.mkdir(parents=True, exist_ok=True)
    write_text(mark, "resight demo may replace this folder\n")
    source = str(images) if images is not None else _draw(out)
    backbone, weights = _affordable(backbone, weights)
    extra = ["--columns", columns] if columns else []
    check, run, searched = out / "check.png", out / "run", out / "searched.parquet"
    _run("data", "check", source, "--sheet", str(check), *extra)
    labelled = _labels(Path(source), columns)
    model = [backbone, "--weights", weights, "--size", size]
    if labelled:
        _run(
            *("train", source, "--out", str(run), "--minutes", f"{minutes:g}"),
            *("--backbone", backbone, "--weights", weights, "--size", size, *_small(), *extra),
        )
        model = [str(run)]
        _roles(run / "images.parquet", searched)
    else:
        note("\nno labels to train on: the backbone is used as it is")
        _roles(Path(source), searched)
    _run("embed", *model, str(searched), "--out", str(out / "features"))
    level = "object" if labelled else "image"
    _run("index", str(out / "features"), "--out", str(out / "gallery"), "--level", level)
    sheet = out / "search.png"
    _run(
        *("search", str(out / "gallery"), str(searched), "--hits", "6", "--limit", "12"),
        *("--sheet", str(sheet)),
    )
    made = {"the doctor's pictures": check, "the trained embedder": run / "embedder"}
    made |= {"the gallery": out / "gallery", "a search": sheet}
    if labelled:
        _run("evaluate", str(run), "--out", str(out / "evaluation"))
        made["the report"] = out / "evaluation" / "report.html"
    note("\nWhat was made:")
    for what, path in made.items():
        if path.exists():
            print(f"  {what + ':':24}{path}")


def _run(*words: str) -> None:
    """Print a command, and run it in this process."""
    from resight.cli.main import app

    note(f"\n$ resight {shlex.join(words)}")
    status = app(list(words), standalone_mode=False)
    if words[:2] != ("data", "check") and status:  # the doctor's 1 says that it found something
        raise typer.Exit(status)


def _draw(out: Path) -> str:
    _run("demo-data", str(out / "images"))
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
        note(
            f"{reason}\nSo the demo trains from nothing, which needs more data and time to be good."
        )
        return backbone or "test_resnet", "none"
    return wanted, "imagenet"


def _small() -> list[str]:
    """Settings for a short training on few images."""
    return ["--set", "lr=2e-3", "--set", "ids=12", "--set", "augment.flip=0"]


def _labels(source: Path, columns: str | None) -> bool:
    from resight.cli.common import parse_columns
    from resight.data.sources import load_images

    images = load_images(source, columns=parse_columns(columns))
    counts = images.table.drop_nulls("object")["object"].value_counts()["count"]
    return len(counts) >= 4 and bool((counts >= 2).any())


def _roles(source: Path, target: Path) -> None:
    """The test rows; where they have no roles, one image of each object asks, the rest answer."""
    import polars as pl

    from resight.data.sources import load_images

    images = load_images(source)
    if (images.table["split"] == "test").any():
        images = images.where(pl.col("split") == "test")
    if not images.table["role"].is_in(["query", "gallery"]).any() and images.objects():
        first = pl.col("object").is_first_distinct() & pl.col("object").is_duplicated()
        role = pl.when(first).then(pl.lit("query")).otherwise(pl.lit("gallery")).alias("role")
        from dataclasses import replace

        images = replace(images, table=images.table.with_columns(role))
    images.write(target)
