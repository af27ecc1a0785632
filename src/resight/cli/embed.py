"""`resight embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli.common import COLUMNS_HELP, IMAGES_HELP, LAYOUT_HELP

MODEL_HELP = "Run or embedder folder, or a backbone's name (then --weights and --size apply)."
WEIGHTS_HELP = "For a backbone's name: imagenet, none, a hub name or a file."
SIZE_HELP = "For a backbone's name: HEIGHTxWIDTH, or one number."


def embed(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    images: Annotated[Path, typer.Argument(help=IMAGES_HELP)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Features folder.")],
    weights: Annotated[str | None, typer.Option(help=WEIGHTS_HELP)] = None,
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    scales: Annotated[str, typer.Option(help="Sum over image scales, e.g. 1,0.707,0.5.")] = "1",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at once; found by itself.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Reading processes.")] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS_HELP)] = None,
    layout: Annotated[str | None, typer.Option(help=LAYOUT_HELP)] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Folders are not objects.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad image.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the features in --out.")] = False,
) -> None:
    """Compute the features of every image of a set, in shards that can be resumed.

    Run the same command again after an interruption: what is done is kept.

    Examples:

      resight embed runs/shop photos/ --out features/shop

      resight embed resnet50 photos/ -o features/plain --weights imagenet --size 224 --dtype float16
    """
    from resight.cli.common import (
        note,
        parse_columns,
        parse_scales,
        parse_size,
        progress_bar,
        report_skipped,
    )
    from resight.data.sources import load_images
    from resight.errors import UserError
    from resight.features.collapsed import NOTE, collapsed
    from resight.features.compute import EmbedOptions
    from resight.features.write import embed_images
    from resight.models.open import open_embedder

    if dtype not in ("float32", "float16"):
        raise UserError(f"--dtype {dtype}: choose float32 or float16")
    options = EmbedOptions(batch_size, flip, parse_scales(scales), workers, strict)
    image_set = load_images(
        images, columns=parse_columns(columns), layout=layout, unlabelled=unlabelled
    )
    for line in image_set.notes:
        note(line)
    embedder = open_embedder(model, weights=weights, size=parse_size(size), tell=note)
    with progress_bar("embedding", len(image_set)) as advance:
        features = embed_images(
            embedder,
            image_set,
            out,
            dtype=dtype,  # type: ignore[arg-type]
            options=options,
            progress=advance,
            tell=note,
            force=force,
        )
    report_skipped(features.info.get("skipped", []))
    note(f"{len(features):,} x {features.shape[1]} {features.dtype}")
    if collapsed(features, features.valid.nonzero()[0]):
        note(NOTE)
    print(out)
