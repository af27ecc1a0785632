"""`resight gallery`: make galleries, and add, remove and move images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resight.cli import gallery_calibrate, gallery_care, gallery_carry, options

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet
    from resight.features.store import Features
    from resight.search.adding import Added

app = typer.Typer(
    help="Keep a gallery: make it, change it, look after it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _gallery() -> None:
    pass


@app.command()
def create(
    model: options.Model,
    out: Annotated[Path | None, options.out("the gallery folder.")] = None,
    level: options.Level = "image",
    index: options.IndexKind = "auto",
    engine: options.Engine = None,
    weights: options.Weights = None,
    size: options.Size = None,
    device: options.Device = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Make an empty gallery, with a copy of its embedder.

    Examples:

      resight gallery create runs/shop --out galleries/shop --level object

      resight gallery create runs/shop --out shop --engine "postgresql://db/shops?gallery=shop"
    """
    from resight.cli.common import next_step, note, parse_size, print_json, take_device
    from resight.errors import UserError
    from resight.files import check_folder
    from resight.models.open import open_embedder
    from resight.search.gallery import RECORD, Gallery

    if out is None:
        raise UserError("--out is missing: the folder for the gallery")
    check_folder(out, "a gallery", mark=RECORD, force=force)
    take_device(device)
    embedder = open_embedder(model, weights=weights, size=parse_size(size), tell=note)
    Gallery.create(out, embedder, level, engine=engine, index=index, force=force).close()
    if json_:
        print_json({"gallery": str(out), "level": level, "vectors": 0})
        return
    print(out, flush=True)
    next_step("gallery", "info", out)


@app.command()
def add(
    gallery: options.GalleryFolder,
    images: options.Photos,
    object_: Annotated[
        str | None, typer.Option("--object", help="Object by name: these images are all of it.")
    ] = None,
    duplicates: options.Duplicates = "skip",
    sync: Annotated[
        bool, typer.Option("--sync", help="Remove the images that are gone from IMAGES.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Take images that were removed before, too.")
    ] = False,
    all_rows: options.AllRows = False,
    columns: options.Columns = None,
    layout: options.Layout = None,
    unlabelled: options.Unlabelled = False,
    device: options.Device = None,
    runtime: options.Runtime = None,
    workers: options.Workers = None,
    strict: options.Strict = False,
    json_: options.Json = False,
) -> None:
    """Bring a gallery up to date with images: only what is new or changed is embedded.

    Interrupted, it goes on when called again. An image that a person has moved to another object
    stays there; one that was removed stays out.

    Examples:

      resight gallery add galleries/shop catalogue/ --sync

      resight gallery add galleries/shop photo1.jpg photo2.jpg --object "blue shoe"
    """
    from resight.cli.common import next_step, progress_bar, take_device
    from resight.search.gallery import Gallery

    take_device(device)
    with Gallery.open(gallery, tell=_tell, runtime=runtime) as opened:
        source = _source(images, columns, layout, unlabelled, object_, all_rows)
        added = _add(*(opened, source, duplicates, sync, again, workers, strict), bar=progress_bar)
        report_added(added, json_, str(gallery), len(opened), opened.level)
        photo = next(iter(added.added), None) or gallery_care.photo_of(opened)
    if not json_:
        print(gallery, flush=True)
        if photo is not None and Path(photo).is_file():
            next_step("search", gallery, photo)
        else:
            next_step("gallery", "info", gallery)


def _tell(line: str) -> None:
    from resight.cli.common import note

    note(line)


def _source(
    images: list[Path],
    columns: str | None,
    layout: str | None,
    unlabelled: bool,
    object_: str | None,
    all_rows: bool,
) -> ImageSet | Features:
    """A set (its gallery images), features, or photos; all of one object, where it is named."""
    from dataclasses import replace

    import polars as pl

    from resight.cli.common import read_set
    from resight.features.store import Features, is_features
    from resight.search.ask import is_set, load_queries
    from resight.search.rows import gallery_rows

    if len(images) == 1 and is_features(images[0]):
        features = Features.load(images[0], check=True)
        return features if all_rows else features.rows(gallery_rows(features.images))
    if len(images) == 1 and is_set(images[0]):
        found = read_set(images[0], columns, layout, unlabelled)
        found = found if all_rows else found.rows(gallery_rows(found))
    else:
        found = load_queries(images, 1, {})
    if object_ is not None:
        found = replace(found, table=found.table.with_columns(pl.lit(object_).alias("object")))
    return found


def _add(
    opened: Any,
    source: ImageSet | Features,
    duplicates: str,
    sync: bool,
    again: bool,
    workers: int | None,
    strict: bool,
    bar: Any,
) -> Added:
    from resight.features.options import EmbedOptions

    with bar("adding", len(source)) as advance:
        opened.add(
            source,
            duplicates=duplicates,
            sync=sync,
            again=again,
            options=EmbedOptions(workers=workers, strict=strict),
            progress=advance,
        )
    added: Added = opened.added
    return added


def report_added(added: Added, json_: bool, gallery: str, vectors: int, level: str) -> None:
    """Say what an add did: how many of each, and the first of what was not taken."""
    from resight.cli.common import note, print_json

    if json_:
        content: dict[str, Any] = {"gallery": gallery, "level": level, "vectors": vectors}
        content |= added.counts() | {"skipped": added.bad, "conflict_with": added.conflicts}
        print_json(content)
        return
    words = {
        "added": len(added.added),
        "embedded again, as they have changed": len(added.replaced),
        "with new labels or places": len(added.relabelled),
        "unchanged": added.unchanged,
        "removed, gone from there": len(added.removed),
        "left out, removed before (--again takes them)": len(added.left_out),
        "copies of images that are there (--duplicates keep takes them)": len(added.copies),
    }
    note(", ".join(f"{count:,} {what}" for what, count in words.items() if count) or "nothing new")
    for path, other in added.conflicts[:10]:
        note(f"label conflict: {path} is the same picture as {other}, of another object; left out")
    for path, reason in added.bad[:10]:
        note(f"skipped {path}: {reason}")
    for what, found in (("label conflicts", added.conflicts), ("bad images", added.bad)):
        if len(found) > 10:
            note(f"{len(found):,} {what} in all")
    note(f"{level} level: {vectors:,} vectors")


@app.command()
def remove(
    gallery: options.GalleryFolder,
    images: options.MaybePhotos = None,
    object_: options.ObjectName = None,
    where: options.Where = None,
    json_: options.Json = False,
) -> None:
    """Remove images by path, an object with all its images, or what a filter names.

    A later 'gallery add' of their folder leaves them out.

    Examples:

      resight gallery remove galleries/shop catalogue/old.jpg

      resight gallery remove galleries/shop --object "blue shoe"

      resight gallery remove galleries/shop --where "season = 2019"
    """
    from resight.search.editing import remove as remove_ids
    from resight.search.gallery import Gallery

    with Gallery.open(gallery) as opened:
        count = remove_ids(opened.engine, opened.choose(images or [], object_, where))
        _report(count, "removed", json_, gallery, len(opened))


@app.command()
def move(
    gallery: options.GalleryFolder,
    images: options.MaybePhotos = None,
    to: Annotated[
        str | None, typer.Option(help="The object they belong to; without it: unknown.")
    ] = None,
    object_: options.ObjectName = None,
    where: options.Where = None,
    json_: options.Json = False,
) -> None:
    """Give images to another object; all of an object's, and it has been renamed or merged.

    Examples:

      resight gallery move galleries/shop catalogue/17.jpg --to "red shoe"

      resight gallery move galleries/shop --object "bleu shoe" --to "blue shoe"
    """
    from resight.search.editing import move as move_ids
    from resight.search.gallery import Gallery

    with Gallery.open(gallery) as opened:
        count = move_ids(opened.engine, opened.choose(images or [], object_, where), to)
        _report(count, "moved", json_, gallery, len(opened))


def _report(count: int, done: str, json_: bool, gallery: Path, vectors: int) -> None:
    from resight.cli.common import next_step, note, print_json

    if json_:
        print_json({"gallery": str(gallery), done: count, "vectors": vectors})
        return
    note(f"{count:,} {'image' if count == 1 else 'images'} {done}; {vectors:,} vectors")
    print(gallery, flush=True)
    next_step("gallery", "info", gallery)


@app.command("move-root")
def move_root(
    gallery: options.GalleryFolder,
    root: Annotated[str, typer.Argument(help="Root by name ('gallery info' lists them).")],
    folder: Annotated[Path, typer.Argument(help="The folder where its photos are now.")],
    json_: options.Json = False,
) -> None:
    """Tell a gallery that a folder of photos has moved.

    Examples:

      resight gallery move-root galleries/shop catalogue /mnt/new/catalogue
    """
    from resight.cli.common import next_step, note, print_json
    from resight.search.gallery import Gallery

    with Gallery.open(gallery) as opened:
        there, of = opened.move_root(root, folder)
    if json_:
        print_json({"gallery": str(gallery), "root": root, "folder": str(folder), "found": there})
        return
    note(f"{there:,} of its first {of:,} photos are there")
    print(gallery, flush=True)
    next_step("gallery", "info", gallery)


app.command("info")(gallery_care.info)
app.command("check")(gallery_care.check)
app.command("compact")(gallery_care.compact)
app.command("copy")(gallery_carry.copy)
app.command("export")(gallery_carry.export)
app.command("import")(gallery_carry.import_)
app.command("reembed")(gallery_carry.reembed)
app.command("calibrate")(gallery_calibrate.calibrate)
