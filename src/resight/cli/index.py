"""`resight index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli.common import COLUMNS_HELP, IMAGES_HELP, LAYOUT_HELP
from resight.cli.embed import MODEL_HELP, SIZE_HELP, WEIGHTS_HELP


def index(
    model: Annotated[str, typer.Argument(help=MODEL_HELP + " Or a features folder.")],
    images: Annotated[Path | None, typer.Argument(help=IMAGES_HELP)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New gallery folder.")] = None,
    level: Annotated[
        str, typer.Option(help="image: a vector an image; object: a centroid an object.")
    ] = "image",
    all_rows: Annotated[
        bool, typer.Option("--all", help="Take every row, whatever its split and role.")
    ] = False,
    weights: Annotated[str | None, typer.Option(help=WEIGHTS_HELP)] = None,
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Reading processes.")] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS_HELP)] = None,
    layout: Annotated[str | None, typer.Option(help=LAYOUT_HELP)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad image.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the gallery in --out.")] = False,
) -> None:
    """Make a gallery that can be searched: of images, or of one centroid an object.

    Of a set with queries and gallery images (column role), the gallery images are taken.

    Examples:

      resight index runs/shop catalogue/ --out galleries/shop --level object

      resight index features/shop --out galleries/shop
    """
    from resight.cli.common import note, parse_columns, parse_size, progress_bar, report_skipped
    from resight.data.sources import load_images
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
        image_set = load_images(images, columns=parse_columns(columns), layout=layout)
        for line in image_set.notes:
            note(line)
        if not all_rows:
            image_set = image_set.rows(gallery_rows(image_set))
        embedder = open_embedder(model, weights=weights, size=parse_size(size), tell=note)
        options = EmbedOptions(flip=flip, workers=workers, strict=strict)
        with progress_bar("embedding", len(image_set)) as advance:
            features = embed_images(embedder, image_set, options=options, progress=advance)
        report_skipped(features.info.get("skipped", []))
    gallery = Gallery(embedder, level).add(features)  # type: ignore[arg-type]
    gallery.save(out, force=force)
    note(f"{level} level: {len(gallery):,} vectors for {int(features.valid.sum()):,} images")
    print(out)
