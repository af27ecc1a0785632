"""`resight index`: make a gallery and fill it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from resight.cli import options

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet
    from resight.features.options import EmbedOptions
    from resight.features.store import Features
    from resight.search.gallery import Gallery


def index(
    model: options.ModelOrFeatures,
    images: options.MaybeImages = None,
    out: Annotated[Path | None, options.out("the gallery folder.")] = None,
    level: options.Level = "image",
    kind: options.IndexKind = "auto",
    all_rows: options.AllRows = False,
    duplicates: options.Duplicates = "skip",
    weights: options.Weights = None,
    size: options.Size = None,
    flip: options.Flip = False,
    scales: options.Scales = None,
    device: options.Device = None,
    runtime: options.Runtime = None,
    workers: options.Workers = None,
    columns: options.Columns = None,
    layout: options.Layout = None,
    unlabelled: options.Unlabelled = False,
    strict: options.Strict = False,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Make a gallery that can be searched: of images, or of one centroid an object.

    The short way of 'gallery create' and 'gallery add'. Of a set with queries and gallery images
    (column role), the gallery images are taken. Interrupted, 'gallery add' goes on.

    Examples:

      resight index runs/shop catalogue/ --out galleries/shop --level object

      resight index features/shop --out galleries/shop
    """
    from resight.cli.common import (
        next_step,
        note,
        parse_scales,
        parse_size,
        read_set,
        take_device,
    )
    from resight.cli.gallery import report_added
    from resight.cli.gallery_care import photo_of
    from resight.errors import UserError
    from resight.features.options import EmbedOptions
    from resight.features.store import Features, is_features
    from resight.features.write import require_made_by
    from resight.files import check_folder
    from resight.models.export.choose import open_for_use
    from resight.search.gallery import LEVELS, RECORD, Gallery
    from resight.search.rows import gallery_rows

    if out is None:
        raise UserError("--out is missing: the folder for the gallery")
    if level not in LEVELS:
        raise UserError(f"--level {level}: choose image or object")
    check_folder(out, "a gallery", mark=RECORD, force=force)
    take_device(device)
    how = EmbedOptions(None, flip, parse_scales(scales or "1"), workers, strict)
    if is_features(model):
        if images is not None:
            raise UserError(f"{model}: features bring their own images; leave IMAGES out")
        features = Features.load(model, check=True)
        if not all_rows:
            features = features.rows(gallery_rows(features.images))
        embedder = open_for_use(model, runtime=runtime, tell=note)
        require_made_by(features, embedder, "the gallery's")
        gallery = Gallery.create(
            out, embedder, level, index=kind, runtime=runtime, force=force, tell=note
        )
        _fill(gallery, features, duplicates, how)
    else:
        if images is None:
            raise UserError("IMAGES is missing: a folder, or a CSV or Parquet file")
        image_set = read_set(images, columns, layout, unlabelled)
        if not all_rows:
            image_set = image_set.rows(gallery_rows(image_set))
        embedder = open_for_use(
            model, weights=weights, size=parse_size(size), runtime=runtime, tell=note
        )
        gallery = Gallery.create(
            out, embedder, level, index=kind, runtime=runtime, force=force, tell=note
        )
        _fill(gallery, image_set, duplicates, how)
    with gallery:
        added = gallery.added
        report_added(added, json_, str(out), len(gallery), level)
        photo = photo_of(gallery)
    if json_:
        return
    print(out, flush=True)
    if photo is not None:
        next_step("search", out, photo)
    else:
        next_step("gallery", "info", out)


def _fill(
    gallery: Gallery, source: ImageSet | Features, duplicates: str, how: EmbedOptions
) -> None:
    from resight.cli.common import progress_bar
    from resight.errors import UserError

    try:
        with progress_bar("indexing", len(source)) as advance:
            gallery.add(source, duplicates=duplicates, options=how, progress=advance)
        if not gallery.engine.counts()[0]:
            path, reason = (gallery.added.bad or [("", "no images")])[0]
            raise UserError(
                f"none of the {len(source):,} images can be used (the first: {path}: {reason})"
            )
    except UserError:
        if not gallery.engine.counts()[0] and gallery.folder is not None:
            gallery.close()
            shutil.rmtree(gallery.folder)  # it was made a moment ago, and nothing is in it
        raise
