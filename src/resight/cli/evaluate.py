"""`resight evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resight.cli.common import COLUMNS_HELP, IMAGES_HELP
from resight.cli.embed import MODEL_HELP, SIZE_HELP, WEIGHTS_HELP

if TYPE_CHECKING:
    from resight.evaluate.scores import Scores


def evaluate(
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    data: Annotated[
        Path | None, typer.Option(help=IMAGES_HELP + " By default, a run's own.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Instead of MODEL: an (N, D) .npy in the order of the rows, or a folder."
        ),
    ] = None,
    level: Annotated[
        str, typer.Option(help="both; or image, or object (one centroid an object).")
    ] = "both",
    cross_camera: Annotated[
        bool | None,
        typer.Option(
            "--cross-camera/--no-cross-camera",
            help="Whether matches by the query's own camera are junk; by default where known.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for scores and report.html.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help=WEIGHTS_HELP)] = None,
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    scales: Annotated[str, typer.Option(help="Sum over image scales, e.g. 1,0.707,0.5.")] = "1",
    workers: Annotated[int | None, typer.Option(min=0, help="Reading processes.")] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS_HELP)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad image.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure retrieval: mAP, R@K, at image and object level, with the protocol beside them.

    The set's test rows are evaluated, or all rows if it has no splits: queries against gallery
    where the set has roles, else every image against all others.

    Examples:

      resight evaluate runs/shop --out evaluation

      resight evaluate runs/shop --data test.csv --json

      resight evaluate --features F.npy --data test.csv --level object

      resight evaluate resnet50 --weights imagenet --size 224 --data photos/
    """
    from resight.cli.common import (
        note,
        parse_columns,
        parse_scales,
        parse_size,
        print_json,
        progress_bar,
        report_skipped,
    )
    from resight.data.sources import load_images
    from resight.errors import UserError
    from resight.evaluate import run
    from resight.features.compute import EmbedOptions
    from resight.features.store import is_features
    from resight.files import check_folder

    if level not in ("both", "image", "object"):
        raise UserError(f"--level {level}: choose both, image or object")
    levels = ("image", "object") if level == "both" else (level,)
    if model is not None and features is None and is_features(model):
        features, model = Path(model), None
    if (model is None) == (features is None):
        raise UserError("give either MODEL (a run, an embedder, a backbone) or --features")
    if out is not None:
        check_folder(out, "an evaluation", mark=run.SCORES, force=True)
    if model is not None and data is None:
        data = Path(str(model)) / "images.parquet"
        if not data.is_file():
            raise UserError("--data is missing: the images to evaluate on")
    images = load_images(data, columns=parse_columns(columns)) if data is not None else None
    for line in images.notes if images is not None else ():
        note(line)
    if features is None:
        from resight.models.open import open_embedder

        assert model is not None and images is not None
        embedder = open_embedder(model, weights=weights, size=parse_size(size), tell=note)
        options = EmbedOptions(None, flip, parse_scales(scales), workers, strict)
        with progress_bar("embedding", len(images)) as advance:
            measured = run.measure_model(embedder, images, options, progress=advance, tell=note)
        report_skipped(measured.origin["skipped"])
    else:
        measured = run.measure_features(features, images)
    scores = run.score(measured, levels, cross_camera)  # type: ignore[arg-type]
    page = None
    if out is not None:
        title = str(model or features)
        page = run.write_folder(out, measured, scores, f"{title} on {measured.images.source}")
    if json_:
        first, *others = [one.summary() for one in scores]
        print_json(first | {f"{other['level']}_level": other for other in others})
    else:
        print_table(scores)
    if page is not None:
        note(f"report: {page}")


def print_table(scores: list[Scores]) -> None:
    """The numbers in percent, a column a level, and the protocol that they mean."""
    from rich.console import Console
    from rich.table import Table

    screen = Console(highlight=False)
    summaries = [one.summary() for one in scores]
    table = Table("", *(f"{s['level']} level" for s in summaries))
    for name in [key for key in summaries[0] if key == "mAP" or key.startswith("R@")] + ["mINP"]:
        table.add_row(name, *(f"{100 * s[name]:.2f} %" for s in summaries))
    for name in ("queries", "queries_without_match", "gallery", "dropped"):
        if name in ("queries", "gallery") or any(s[name] for s in summaries):
            table.add_row(name.replace("_", " "), *(f"{s[name]:,}" for s in summaries))
    screen.print(table)
    first = summaries[0]
    split = f"{first['split']} rows" if first["split"] else "all rows"
    screen.print(f"protocol: {first['protocol']}; {split}; {first['ap']} AP; ties {first['ties']}")
    for line in dict.fromkeys(line for one in scores for line in one.notes()):
        screen.print(f"note: {line}", markup=False)
