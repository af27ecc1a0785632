"""`resight index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli import options


def index(
    model: options.ModelOrFeatures,
    images: options.MaybeImages = None,
    out: Annotated[Path | None, options.out("the gallery folder.")] = None,
    level: Annotated[str, typer.Option(help=f"{options.LEVEL_HELP}.")] = "image",
    all_rows: Annotated[
        bool, typer.Option("--all", help="Take every row, whatever its split and role.")
    ] = False,
    weights: options.Weights = None,
    size: options.Size = None,
    flip: options.Flip = False,
    scales: options.Scales = None,
    device: options.Device = None,
    workers: options.Workers = None,
    columns: options.Columns = None,
    layout: options.Layout = None,
    unlabelled: options.Unlabelled = False,
    strict: options.Strict = False,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Make a gallery that can be searched: of images, or of one centroid an object.

    Of a set with queries and gallery images (column role), the gallery images are taken.

    Examples:

      resight index runs/shop catalogue/ --out galleries/shop --level object

      resight index features/shop --out galleries/shop
    """
    from resight.cli.common import (
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
    from resight.features.compute import EmbedOptions
    from resight.features.store import Features, is_features
    from resight.features.write import embed_images
    from resight.files import check_folder
    from resight.models.embedder import Embedder
    from resight.models.open import open_embedder
    from resight.search.gallery import RECORD, Gallery
    from resight.search.rows import gallery_rows

    if out is None:
        raise UserError("--out is missing: the folder for the gallery")
    if level not in ("image", "object"):
        raise UserError(f"--level {level}: choose image or object")
    if not force:
        check_folder(out, "a gallery", mark=RECORD)
    take_device(device)
    if is_features(model):
        if images is not None:
            raise UserError(f"{model}: features bring their own images; leave IMAGES out")
        features = Features.load(model, check=True)
        embedder = Embedder.load(model)
        if not all_rows:
            features = features.rows(gallery_rows(features.images))
    else:
        if images is None:
            raise UserError("IMAGES is missing: a folder, or a CSV or Parquet file")
        image_set = read_set(images, columns, layout, unlabelled)
        if not all_rows:
            image_set = image_set.rows(gallery_rows(image_set))
        embedder = open_embedder(model, weights=weights, size=parse_size(size), tell=note)
        how = EmbedOptions(None, flip, parse_scales(scales or "1"), workers, strict)
        with progress_bar("embedding", len(image_set)) as advance:
            features = embed_images(embedder, image_set, options=how, progress=advance)
        report_skipped(features.info.get("skipped", []))
    gallery = Gallery(embedder, level).add(features)  # type: ignore[arg-type]
    gallery.save(out, force=force)
    count = int(features.valid.sum())
    if json_:
        content = {"gallery": str(out), "level": level, "vectors": len(gallery), "images": count}
        print_json(content | {"dimensions": features.shape[1]})
        return
    note(f"{level} level: {len(gallery):,} vectors for {count:,} images")
    print(out, flush=True)
    photos = (path for path in gallery.items["path"] if Path(path).is_file())
    next_step("search", out, next(photos, "PHOTO"))
