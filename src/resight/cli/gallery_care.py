"""`resight gallery`: look at galleries, mend, move and calibrate them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resight.cli import options

if TYPE_CHECKING:
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
        photo = photo_of(opened)
    if json_:
        print_json(found)
        return
    index = found["index"]
    print(f"{found['images']:,} images of {found['objects']:,} objects")
    print(
        f"{found['level']} level: {found['vectors']:,} vectors of {found['dimensions']} dimensions"
    )
    recall = f", recall@10 {index['recall@10']:.3f}" if "effort" in index else ""
    since = f", {index['since']:,} changes since" if "since" in index else ""
    print(f"index: {index['kind']}{recall}{since}")
    print(f"on disk: {found['bytes'] / 2**20:,.1f} MB, version {found['version']:,}")
    for name, path in found["roots"].items():
        print(f"photos {name}: {path}" + ("" if Path(path).is_dir() else "  (not there)"))
    for level, record in found["calibrated"].items():
        stale = "; the gallery has changed since, calibrate again" if record["stale"] else ""
        print(f"calibrated at {level} level, alpha {record['alpha']:.3g}{stale}")
    if not found["calibrated"]:
        print("not calibrated: every search finds something, also what is not here")
    if not found["calibrated"] and found["objects"] > 1:
        next_step("gallery", "calibrate", gallery)
    elif photo is not None:
        next_step("search", gallery, photo)
    else:
        next_step("gallery", "check", gallery)


def photo_of(gallery: Gallery) -> str | None:
    """A photo of the gallery whose file is there, to search for."""
    from resight.search.incoming import full_path

    roots = {root.id: root for root in gallery.engine.roots()}
    for row in gallery.engine.rows(gallery.engine.ids(limit=100)):
        if row.bytes is not None and Path(path := full_path(row, roots)).is_file():
            return path
    return None


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
