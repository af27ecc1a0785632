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
from resight.cli.common import next_step, note

AUTO, MINUTES, SIZE = "auto", 2.5, "160"


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

    Fits and trains for 2.5 minutes at 160 pixels unless told otherwise, shows the same searches
    before and after, and what goes without labels. Prints each command before it runs it, so that
    you can go on from any of them.

    Examples:

      resight demo

      resight demo photos/ --out demo/photos --minutes 10
    """
    from resight.errors import UserError
    from resight.files import fresh_folder, write_text

    if images is not None and images.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{images}: lies inside {out}, which the demo replaces; give another --out")
    obstacle = _obstacle(str(images), columns) if images is not None else None  # reads it all
    run_verb = partial(_run, typer.main.get_command(context.obj))
    mark = out / ".resight-demo"
    fresh_folder(out, "a demo", mark=mark.name, force=True)
    out.mkdir(parents=True, exist_ok=True)
    write_text(mark, "resight demo may replace this folder\n")
    source = str(images) if images is not None else _draw(run_verb, out)
    extra = ["--columns", columns] if columns else []
    check, run, searched = out / "check.png", out / "run", out / "searched.parquet"
    run_verb("data", "check", source, "--sheet", str(check), *extra)
    backbone, weights, size = backbone or AUTO, weights or AUTO, size or SIZE
    network = ["--backbone", backbone, "--weights", weights, "--size", size]
    minutes = minutes or MINUTES
    note(f"\nFirst a closed form on the frozen network, then training, {minutes:g} minutes in all.")
    unlabelled = [] if obstacle is None else ["--unlabelled"]
    if obstacle is not None:
        note(f"Labels are not used: {obstacle}")
    run_verb(
        *("train", source, "--out", str(run), "--minutes", f"{minutes:g}"),
        *(*network, *unlabelled, *extra),
    )
    table = str(run / "images.parquet") if obstacle is None else source
    labelled = _roles(table, None if obstacle is None else columns, searched)
    level = "object" if labelled else "image"
    plain = [backbone, "--weights", weights, "--size", size]
    sheets = {}
    for name, words in {"before": plain, "after": [str(run)]}.items():
        sheets[name] = out / f"search-{name}.png"
        features, gallery = str(out / f"features-{name}"), str(out / f"gallery-{name}")
        run_verb("embed", words[0], str(searched), *words[1:], "--out", features)
        run_verb("index", features, "--out", gallery, "--level", level)
        run_verb(
            *("search", gallery, str(searched), "--hits", "6", "--limit", "12"),
            *("--sheet", str(sheets[name])),
        )
    made = {"the doctor's pictures": check, "the trained embedder": run / "embedder"}
    made |= {"the gallery": out / "gallery-after"}
    made |= {"a search before": sheets["before"], "the same after": sheets["after"]}
    if labelled:
        blind = out / "embedder-without-labels"
        if obstacle is None:
            note("\nThe same without a label, from images that are each other's nearest:")
            run_verb("fit", plain[0], table, *plain[1:], "--unlabelled", "--out", str(blind))
        made["the report"] = _measured(run_verb, out, searched, run, blind)
        note("\nWhat is not in the gallery is said to be no match, at a promised rate:")
        run_verb("gallery", "calibrate", str(out / "gallery-after"), "--alpha", "0.1")
    note("\nWhat was made:")
    for what, path in made.items():
        if path.exists():
            print(f"  {what + ':':24}{path}")
    note("\nA page to search it by photo, in your browser:")
    next_step("serve", out / "gallery-after")


def _measured(
    run_verb: Callable[..., None], out: Path, searched: Path, run: Path, blind: Path
) -> Path:
    """Evaluate the network as it comes, fitted, and trained; their figures side by side."""
    from resight.errors import UserError
    from resight.files import read_json

    ways = {"weights as they come": [str(out / "features-before")]}
    if blind.is_dir():
        ways["without labels"] = [str(blind), str(searched)]
    if (run / "start").is_dir():
        ways["closed form"] = [str(run / "start"), str(searched)]
    ways["trained from there"] = [str(out / "features-after")]
    lines = []
    for name, words in ways.items():
        folder = out / "evaluations" / name.replace(" ", "-")
        try:
            run_verb("evaluate", *words, "--out", str(folder))
        except UserError as reason:
            note(f"not measured: {reason}")
            return folder
        found = read_json(folder / "scores.json", "scores")
        last = found["scores"][-1]  # of both levels the object level
        lines.append(f"  {name:24}R@1 {100 * last['R@1']:5.1f} %")
    note("\nOn objects never seen, one vector an object, the right one found first:")
    for line in lines:
        note(line)
    best = read_json(run / "run.json", "a run").get("best")
    if isinstance(best, dict) and best.get("epoch") == 0:
        note(
            "The last is the closed form again, fitted to all training objects: training had no "
            "time, or gained nothing (--minutes gives it more)"
        )
    return out / "evaluations" / "trained-from-there" / "report.html"


def _run(root: Any, *words: str) -> None:
    """Print a command, and run it in this process."""
    note(f"\n$ resight {shlex.join(words)}")
    status = root.main(list(words), prog_name="resight", standalone_mode=False)
    if words[:2] != ("data", "check") and status:  # the doctor's 1 says that it found something
        raise typer.Exit(status)


def _draw(run_verb: Callable[..., None], out: Path) -> str:
    run_verb("demo-data", "--out", str(out / "images"))
    return str(out / "images" / "index.csv")


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
