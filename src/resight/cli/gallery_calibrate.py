"""`resight gallery calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resight.cli import options
from resight.cli.gallery_care import photo_of

if TYPE_CHECKING:
    from resight.search.calibrating import Known
    from resight.search.gallery import Gallery


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
    runtime: options.Runtime = None,
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
    from resight.cli.common import next_step, note, print_json, read_set, take_device
    from resight.search.calibrating import ALPHA
    from resight.search.gallery import Gallery

    take_device(device)
    with Gallery.open(gallery, tell=note, runtime=runtime) as opened:
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
        photo = photo_of(opened)
    if plot is not None:
        note(f"plot: {plot}")
    if json_:
        print_json(known.record)
    else:
        _print_calibration(known, gallery)
        if photo is not None:
            next_step("search", gallery, photo)
        else:
            next_step("gallery", "info", gallery)


def _queries(opened: Gallery, images: Any, workers: int | None) -> Any:
    import numpy as np

    from resight.features.compute import EmbedOptions, embed_rows
    from resight.search.rows import query_rows

    images = images.rows(query_rows(images))
    vectors, _ = embed_rows(
        opened.network(len(images)), images, options=EmbedOptions(workers=workers)
    )
    good = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    objects = images.table["object"].to_list()
    return vectors[good], [objects[row] for row in good.tolist()]


def _print_calibration(known: Known, gallery: Path) -> None:
    from resight.cli.common import note

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
        before = compared["without_queries"]
        verdict = "kept either way" if before["kept"] else "broken: query photos were needed"
        note(
            f"learned from gallery photos, {100 * before['rate']:.1f} % of things not here would "
            f"be matched by such queries; promised are {100 * before['alpha']:.3g} %, {verdict}"
        )
    print("of things not in the gallery, matched:   of things in it, found:")
    for point in record["operating_points"]:
        print(f"  {_percent(point, 'false_match'):38} {_percent(point, 'found')}")
    for row in record.get("by_camera", []):
        name = f"at alpha {record['alpha']:.3g}, camera {row['query_camera']}:"
        print(f"  {name:38} found {_percent(row, 'found')}, false {_percent(row, 'false_match')}")
    error = record["expected_calibration_error"]
    if error is not None:
        print(f"probability of the first hit: calibration error {error:.3f} on held-out objects")
    note(f"searches say 'no match' at alpha {record['alpha']:.3g} from now on")
    print(gallery, flush=True)


def _percent(point: dict[str, Any], name: str) -> str:
    rate = point[f"{name}_rate"]
    if rate is None:
        return "-"
    low, high = 100 * point[f"{name}_low"], 100 * point[f"{name}_high"]
    return f"{100 * rate:.1f} % [{low:.1f}, {high:.1f}]"
