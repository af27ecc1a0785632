"""`resight export`: an embedder as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli import options


def export(
    model: options.Model,
    images: options.MaybeImages = None,
    out: Annotated[Path | None, options.out("the folder of the ONNX file.")] = None,
    dtype: Annotated[
        str, typer.Option(help="float32 or float16. Or int8, its ranges seen on IMAGES.")
    ] = "float32",
    normalise: Annotated[
        bool,
        typer.Option("--normalise", help="Normalise inside: uint8 pixels (N, H, W, 3) go in."),
    ] = False,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Take images of any height and width.")
    ] = False,
    weights: options.Weights = None,
    size: options.Size = None,
    flip: options.Flip = False,
    scales: options.Scales = None,
    bound: Annotated[
        float | None,
        typer.Option(min=0, help="Difference of unit vectors that is accepted; by type."),
    ] = None,
    workers: options.Workers = None,
    columns: options.Columns = None,
    layout: options.Layout = None,
    unlabelled: options.Unlabelled = False,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Write an embedder as an ONNX file, from pixels to vector, with its description in JSON.

    Before the file is kept it is compared with the embedder: on IMAGES, where these have objects by
    mAP too; without IMAGES on drawn pictures. A file that differs too much is not written.

    Examples:

      resight export runs/shop photos/ --out exported/shop

      resight export runs/shop photos/ --out exported/small --dtype int8 --normalise
    """
    from resight.cli.common import (
        free,
        next_step,
        note,
        of_model,
        of_set,
        parse_scales,
        parse_size,
        print_json,
        progress_bar,
        read_set,
    )
    from resight.errors import UserError
    from resight.evaluate.exported import export_embedder
    from resight.models.open import open_embedder

    if out is None:
        raise UserError("--out is missing: the folder for the ONNX file")
    image_set = read_set(images, columns, layout, unlabelled) if images is not None else None
    embedder = open_embedder(model, weights=weights, size=parse_size(size), device="cpu", tell=note)
    with progress_bar("comparing", None) as advance:
        record = export_embedder(
            embedder,
            out,
            image_set,
            dtype=dtype,
            normalise=normalise,
            dynamic=dynamic,
            flip=flip,
            scales=parse_scales(scales or "1"),
            bound=bound,
            workers=workers,
            force=force,
            progress=advance,
        )
    if json_:
        print_json({"exported": str(out)} | record)
        return
    parity = record["parity"]
    note(
        f"compared with torch on {parity['images']:,} images ({parity['from']}): unit vectors "
        f"differ by {parity['largest']:.2g} at most, {parity['mean']:.2g} in the mean"
    )
    if "mAP" in parity:
        ours, theirs = parity["mAP"]["onnx"], parity["mAP"]["torch"]
        note(f"mAP {100 * ours:.2f}, torch {100 * theirs:.2f}")
    note(f"{record['bytes'] / 1e6:.1f} MB, {record['dtype']}")
    print(out, flush=True)
    if images is None:
        next_step("index", "--help")
        return
    named = [model, *of_model(weights, size), *of_set(images, columns, layout, unlabelled)]
    next_step("index", *named, "--out", free(Path("galleries") / out.name))
