"""`resight gallery`: look at galleries, mend, move and calibrate them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resight.cli import options

if TYPE_CHECKING:
    from resight.search.calibrating import Known
    from resight.search.check import Finding
    from resight.search.gallery import Gallery


def info(gallery: options.GalleryFolder, json_: options.Json = False) -> None:
    """What a gallery holds, how it is searched, where its photos are expected.

    Examples:

      resight gallery info galleries/shop
    """
    from resight.cli.common import next_step, print_json
    from resight.search.gallery import Gallery

    with Gallery.open(gallery) as opened:
        found = opened.info()
    if json_:
        print_json(found)
        return
    index = found["index"]
    print(f"{found['images']:,} images of {found['objects']:,} objects")
    print(
        f"{found['level']} level: {found['vectors']:,} vectors of {found['dimensions']} dimensions"
    )
    recall = "" if index["kind"] == "flat" else f", recall@10 {index['recall@10']:.3f}"
    print(f"index: {index['kind']}{recall}, {index['since']:,} changes since")
    print(f"on disk: {found['bytes'] / 2**20:,.1f} MB, version {found['version']:,}")
    for name, path in found["roots"].items():
        print(f"photos {name}: {path}" + ("" if Path(path).is_dir() else "  (not there)"))
    for level, record in found["calibrated"].items():
        stale = "; the gallery has changed since, calibrate again" if record["stale"] else ""
        print(f"calibrated at {level} level, alpha {record['alpha']:.3g}{stale}")
    if not found["calibrated"]:
        print("not calibrated: every search finds something, also what is not here")
        next_step("gallery", "calibrate", gallery)
    else:
        next_step("search", gallery, "PHOTO")


def check(
    gallery: options.GalleryFolder,
    repair: Annotated[bool, typer.Option("--repair", help="Mend the faults found.")] = False,
    json_: options.Json = False,
) -> None:
    """Look for damage and for what does not fit; exit status 1 where there are faults.

    Every vector's checksum is compared, the sums of the objects are made anew and compared, and
    the index is compared with the vectors.

    Examples:

      resight gallery check galleries/shop

      resight gallery check galleries/shop --repair
    """
    from resight.cli.common import next_step, note, print_json
    from resight.search.check import FAULT
    from resight.search.check import check as look

    opened = _opened(gallery, repair)
    with opened:
        found = look(opened, progress=lambda stage: None)
        faults = [one for one in found if one.kind == FAULT]
        if repair and faults:
            found, faults = _mended(opened, found)
    if json_:
        print_json({"faults": len(faults), "findings": [vars(one) for one in found]})
    else:
        for one in found[:100]:
            print(f"{one.kind}: {one}")
        if len(found) > 100:
            print(f"and {len(found) - 100:,} more (--json lists them)")
        notes = len(found) - len(faults)
        note(f"{len(faults):,} faults" + (f", {notes:,} notes" if notes else ""))
        if faults and not repair:
            next_step("gallery", "check", gallery, "--repair")
        else:
            next_step("gallery", "info", gallery)
    if faults:
        raise typer.Exit(1)


def _opened(gallery: Path, repair: bool) -> Gallery:
    """A gallery, also one whose database SQLite refuses, where it is to be mended."""
    from resight.cli.common import note
    from resight.errors import UserError
    from resight.search.gallery import DATABASE, Gallery

    try:
        return Gallery.open(gallery)
    except UserError as error:
        if not repair or "damaged" not in str(error) or not (gallery / DATABASE).is_file():
            raise
        from resight.search.repair import open_damaged

        return open_damaged(gallery.absolute(), tell=note)


def _mended(opened: Gallery, found: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    from resight.cli.common import note
    from resight.search.check import FAULT
    from resight.search.check import check as look
    from resight.search.repair import repair as mend

    for one in found:
        if one.kind == FAULT:
            print(f"{one.kind}: {one}")
    opened = mend(opened, found, tell=note)
    found = look(opened)
    return found, [one for one in found if one.kind == FAULT]


def compact(gallery: options.GalleryFolder, json_: options.Json = False) -> None:
    """Give unused room back and build the index anew.

    Examples:

      resight gallery compact galleries/shop
    """
    from resight.cli.common import next_step, note, print_json
    from resight.search.gallery import Gallery

    with Gallery.open(gallery, tell=note) as opened:
        before, after = opened.compact()
    if json_:
        print_json({"gallery": str(gallery), "bytes_before": before, "bytes": after})
        return
    note(f"{before / 2**20:,.1f} MB before, {after / 2**20:,.1f} MB now")
    print(gallery, flush=True)
    next_step("gallery", "info", gallery)


def copy(
    gallery: options.GalleryFolder,
    target: Annotated[Path, typer.Argument(help="A new folder; or the copy to be gone on with.")],
    json_: options.Json = False,
) -> None:
    """Copy a gallery, with its ids; compared by counts and checksums. Goes on when interrupted.

    Examples:

      resight gallery copy galleries/shop backup/shop
    """
    from resight.cli.common import next_step, note, print_json, progress_bar
    from resight.search.gallery import Gallery

    with Gallery.open(gallery) as opened, progress_bar("copying", len(opened)) as advance:
        count = opened.copy(target, progress=advance)
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
    from resight.cli.common import next_step, note, print_json, progress_bar
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
    next_step("gallery", "import", out, "--out", f"{gallery}-imported")


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
        how = EmbedOptions(workers=workers)
        count = embed_anew(
            opened, embedder, drop_missing=drop_missing, options=how, progress=advance
        )
        images = opened.engine.counts()[0]
    if json_:
        print_json({"gallery": str(gallery), "embedded": count, "images": images})
        return
    note(f"{count:,} images embedded" if count else "it has this embedder already")
    print(gallery, flush=True)
    next_step("gallery", "calibrate", gallery)


def calibrate(
    gallery: options.GalleryFolder,
    images: Annotated[
        Path | None,
        typer.Argument(help="Labelled query photos, where these are of another kind."),
    ] = None,
    alpha: options.Alpha = None,
    level: options.MaybeLevel = None,
    cross_camera: Annotated[
        bool,
        typer.Option(
            "--cross-camera",
            help="Whether matches by the query's own camera are junk.",
        ),
    ] = False,
    columns: options.Columns = None,
    layout: options.Layout = None,
    seed: options.Seed = None,
    device: options.Device = None,
    workers: options.Workers = None,
    json_: options.Json = False,
    plot: options.Plot = None,
) -> None:
    """Learn what "not in the gallery" looks like, so that searches can say so.

    From the gallery's own objects, each left out in turn; or from labelled query photos, where
    queries are of another kind than the gallery's photos. Afterwards a hit has a probability, and
    a search says "no match" such that of things not in the gallery at most --alpha are matched.

    Examples:

      resight gallery calibrate galleries/shop

      resight gallery calibrate galleries/shop phone_photos.csv --alpha 0.01 --plot points.png
    """
    from resight.cli.common import note, print_json, read_set, take_device
    from resight.search.calibrating import ALPHA
    from resight.search.gallery import Gallery

    take_device(device)
    with Gallery.open(gallery) as opened:
        asked = None
        if images is not None:
            asked = _queries(opened, read_set(images, columns, layout), workers)
        known = opened.calibrate(
            level,
            queries=asked,
            cross_camera=cross_camera,
            alpha=ALPHA if alpha is None else alpha,
            seed=seed or 0,
            tell=note,
            plot=plot,
        )
    if plot is not None:
        note(f"plot: {plot}")
    if json_:
        print_json(known.record)
    else:
        _print_calibration(known, gallery)


def _queries(opened: Gallery, images: Any, workers: int | None) -> Any:
    import numpy as np

    from resight.features.compute import EmbedOptions, embed_rows
    from resight.search.rows import query_rows

    images = images.rows(query_rows(images))
    vectors, _ = embed_rows(opened.need_embedder(), images, options=EmbedOptions(workers=workers))
    good = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    objects = images.table["object"].to_list()
    return vectors[good], [objects[row] for row in good.tolist()]


def _print_calibration(known: Known, gallery: Path) -> None:
    from resight.cli.common import next_step, note

    record = known.record
    note(
        f"learned from {record['queries']:,} {'images' if 'own' in record['from'] else 'queries'} "
        f"({record['from']}) of {record['objects']:,} objects, {record['level']} level"
    )
    compared = record.get("compared")
    if compared is None:
        note("are queries of another kind (a phone, another camera)? Give labelled ones: IMAGES")
    else:
        note(
            "similarity to other objects, median: gallery photos "
            f"{compared['gallery_median']:.3f}, queries {compared['queries_median']:.3f}"
        )
    print("of things not in the gallery, matched:   of things in it, found:")
    for point in record["operating_points"]:
        print(f"  {_percent(point, 'false_match'):38} {_percent(point, 'found')}")
    error = record["expected_calibration_error"]
    if error is not None:
        print(f"probability of the first hit: calibration error {error:.3f} on held-out objects")
    note(f"searches say 'no match' at alpha {record['alpha']:.3g} from now on")
    print(gallery, flush=True)
    next_step("search", gallery, "PHOTO")


def _percent(point: dict[str, Any], name: str) -> str:
    rate = point[f"{name}_rate"]
    if rate is None:
        return "-"
    low, high = 100 * point[f"{name}_low"], 100 * point[f"{name}_high"]
    return f"{100 * rate:.1f} % [{low:.1f}, {high:.1f}]"
