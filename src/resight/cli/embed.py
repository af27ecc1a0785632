"""`resight embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli import options


def embed(
    model: options.Model,
    images: options.Images,
    out: Annotated[Path, options.out("the features folder.")],
    weights: options.Weights = None,
    size: options.Size = None,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    flip: options.Flip = False,
    scales: options.Scales = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at once; found by itself.")
    ] = None,
    device: options.Device = None,
    runtime: options.Runtime = None,
    workers: options.Workers = None,
    columns: options.Columns = None,
    layout: options.Layout = None,
    unlabelled: options.Unlabelled = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Embed on a Ray cluster: local (this machine's cores), auto, or HOST:PORT.",
        ),
    ] = None,
    strict: options.Strict = False,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Compute the features of every image of a set, in shards that can be resumed.

    Run the same command again after an interruption: what is done is kept.

    Examples:

      resight embed runs/shop photos/ --out features/shop

      resight embed runs/shop s3://bucket/all.parquet --out features/all --ray auto

      resight embed resnet50 photos/ -o features/plain --weights imagenet --size 224 --dtype float16
    """
    from resight.cli.common import (
        free,
        next_step,
        note,
        parse_scales,
        parse_size,
        print_json,
        progress_bar,
        read_set,
        report_skipped,
        take_device,
    )
    from resight.errors import UserError
    from resight.features.collapsed import NOTE, collapsed
    from resight.features.compute import EmbedOptions
    from resight.features.write import embed_images
    from resight.models.export.choose import open_for_use

    if dtype not in ("float32", "float16"):
        raise UserError(f"--dtype {dtype}: choose float32 or float16")
    how = EmbedOptions(batch_size, flip, parse_scales(scales or "1"), workers, strict)
    take_device(device)
    image_set = read_set(images, columns, layout, unlabelled)
    embedder = open_for_use(
        model,
        weights=weights,
        size=parse_size(size),
        runtime=runtime,
        images=len(image_set),
        flip=how.flip,
        scales=how.scales,
        tell=note,
    )
    with progress_bar("embedding", len(image_set)) as advance:
        features = embed_images(
            embedder,
            image_set,
            out,
            dtype=dtype,  # type: ignore[arg-type]
            options=how,
            runtime=runtime,
            progress=advance,
            tell=note,
            force=force,
            ray=ray,
        )
    report_skipped(features.info.get("skipped", []))
    alike = collapsed(features, features.valid.nonzero()[0])
    if json_:
        rows, width = features.shape
        content = {"features": str(out), "images": rows, "dimensions": width}
        content |= {"dtype": str(features.dtype), "runtime": features.info["key"]["runtime"]}
        content |= {"collapsed": bool(alike)}
        print_json(content | {"skipped": features.info.get("skipped", [])})
        return
    note(f"{len(features):,} x {features.shape[1]} {features.dtype}")
    if alike:
        note(NOTE)
    print(out, flush=True)
    if image_set.has_matches():
        next_step("evaluate", out)
    else:
        next_step("index", out, "--out", free(Path("galleries") / out.name))
