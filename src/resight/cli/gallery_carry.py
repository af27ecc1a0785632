"""`resight gallery`: copy, export, import, and another embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli import options


def copy(
    gallery: options.GalleryFolder,
    target: Annotated[Path, typer.Argument(help="A new folder; or the copy to be gone on with.")],
    engine: options.Engine = None,
    json_: options.Json = False,
) -> None:
    """Copy a gallery, with its ids; compared by counts and checksums. Goes on when interrupted.

    Examples:

      resight gallery copy galleries/shop backup/shop

      resight gallery copy galleries/shop served/shop --engine "postgresql://db/shops?gallery=shop"
    """
    from resight.cli.common import next_step, note, print_json, progress_bar
    from resight.search.gallery import Gallery

    with Gallery.open(gallery) as opened, progress_bar("copying", len(opened)) as advance:
        count = opened.copy(target, engine=engine, progress=advance)
    if json_:
        print_json({"gallery": str(target), "images": count})
        return
    note(f"{count:,} images, checksums equal")
    print(target, flush=True)
    next_step("gallery", "info", target)


def export(
    gallery: options.GalleryFolder,
    out: Annotated[Path | None, options.out("a features folder, which every verb reads.")] = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Write vectors, labels and columns as features: for evaluate, index, or a notebook.

    Examples:

      resight gallery export galleries/shop --out features/shop
    """
    from resight.cli.common import free, next_step, note, print_json, progress_bar
    from resight.errors import UserError
    from resight.search.exporting import export as write
    from resight.search.gallery import Gallery

    if out is None:
        raise UserError("--out is missing: the folder for the features")
    with Gallery.open(gallery) as opened, progress_bar("exporting", len(opened)) as advance:
        features = write(opened, out, force=force, progress=advance)
    if json_:
        print_json({"features": str(out), "images": len(features)})
        return
    note(f"{len(features):,} images")
    print(out, flush=True)
    next_step("gallery", "import", out, "--out", free(Path(f"{gallery}-imported")))


def import_(
    features: Annotated[Path, typer.Argument(help="Features folder (from 'gallery export').")],
    out: Annotated[Path | None, options.out("the gallery folder.")] = None,
    level: options.Level = "image",
    index: options.IndexKind = "auto",
    duplicates: options.Duplicates = "keep",
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Make a gallery of all rows of a features folder, with its embedder.

    Examples:

      resight gallery import features/shop --out galleries/shop
    """
    from resight.cli.common import next_step, note, print_json, progress_bar
    from resight.errors import UserError
    from resight.features.store import Features
    from resight.models.embedder import CONFIG, Embedder
    from resight.search.gallery import Gallery

    if out is None:
        raise UserError("--out is missing: the folder for the gallery")
    found = Features.load(features, check=True)
    has = (features / "embedder" / CONFIG).is_file()
    embedder = Embedder.load(features) if has else None
    with Gallery.create(out, embedder, level, index=index, force=force, tell=note) as made:
        with progress_bar("importing", len(found)) as advance:
            made.add(found, duplicates=duplicates, progress=advance)
        if json_:
            print_json({"gallery": str(out), "images": made.engine.counts()[0]})
            return
        note(f"{level} level: {len(made):,} vectors")
    print(out, flush=True)
    next_step("gallery", "info", out)


def reembed(
    gallery: options.GalleryFolder,
    model: options.Model,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Remove images whose photos are gone.")
    ] = False,
    weights: options.Weights = None,
    size: options.Size = None,
    device: options.Device = None,
    runtime: options.Runtime = None,
    workers: options.Workers = None,
    json_: options.Json = False,
) -> None:
    """Give a gallery another embedder: embedded beside, then switched at once.

    Until then it is searched and added to as before. Interrupted, it goes on when called again.

    Examples:

      resight gallery reembed galleries/shop runs/better
    """
    from resight.cli.common import (
        next_step,
        note,
        parse_size,
        print_json,
        progress_bar,
        take_device,
    )
    from resight.features.compute import EmbedOptions
    from resight.models.open import open_embedder
    from resight.search.gallery import Gallery
    from resight.search.repair import reembed as embed_anew

    take_device(device)
    embedder = open_embedder(model, weights=weights, size=parse_size(size), tell=note)
    with Gallery.open(gallery) as opened, progress_bar("embedding", len(opened)) as advance:
        count = embed_anew(
            opened,
            embedder,
            runtime=runtime,
            drop_missing=drop_missing,
            options=EmbedOptions(workers=workers),
            progress=advance,
            tell=note,
        )
        images = opened.engine.counts()[0]
    if json_:
        print_json({"gallery": str(gallery), "embedded": count, "images": images})
        return
    note(f"{count:,} images embedded" if count else "it has this embedder already")
    print(gallery, flush=True)
    next_step("gallery", "info", gallery)
