"""`resight search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from resight.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from resight.search.ask import Answer


def search(
    gallery: options.GalleryFolder,
    images: Annotated[list[Path], typer.Argument(help=options.PHOTOS_HELP, parser=options.place)],
    k: Annotated[int, typer.Option("--hits", "-k", min=1, help="Objects for each query.")] = 10,
    level: Annotated[
        str | None,
        typer.Option(
            help=f"{options.LEVEL_HELP}; by default the gallery's own. Or both: found by centroid, "
            "shown by the best image."
        ),
    ] = None,
    where: options.Where = None,
    exclude_cameras: Annotated[
        str | None, typer.Option(help="Cameras whose images are no answer, e.g. c1,c2.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="All photos show one thing: one query.")
    ] = False,
    region: Annotated[
        str | None, typer.Option(help="Part of the photo: x1,y1,x2,y2 in pixels.")
    ] = None,
    rerank: options.Rerank = None,
    alpha: options.Alpha = None,
    sheet: options.Sheet = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Of an image set, this many queries, evenly spread.")
    ] = 20,
    columns: options.Columns = None,
    layout: options.Layout = None,
    unlabelled: options.Unlabelled = False,
    device: options.Device = None,
    runtime: options.Runtime = None,
    workers: options.Workers = None,
    json_: options.Json = False,
    strict: options.Strict = False,
) -> None:
    """Search photos in a gallery: the most similar objects, best first.

    Of a labelled image set the truth is known: hits are marked right or wrong. Once the gallery
    is calibrated ('resight gallery calibrate'), hits have a probability, and what is not in the
    gallery is said to be no match.

    Examples:

      resight search galleries/shop photo.jpg

      resight search galleries/shop a.jpg b.jpg --together -k 5 --sheet hits.png

      resight search galleries/shop photo.jpg --where "price < 20 and camera != 'c3'"

      resight search galleries/shop photo.jpg --rerank diffusion+spatial:top=10

      resight search galleries/shop test.csv --limit 30 --sheet hits.png --json
    """
    from resight.cli.common import console, note, parse_columns, print_json, take_device
    from resight.search.ask import ask, load_queries, parse_region, with_region, write_sheet
    from resight.search.gallery import Gallery

    take_device(device)
    box = parse_region(region)
    with Gallery.open(gallery, tell=note, runtime=runtime) as opened:
        queries = load_queries(images, limit, parse_columns(columns), layout, unlabelled)
        answers = ask(
            opened,
            with_region(queries, box),
            k,
            together=together,
            workers=workers or 0,
            strict=strict,
            tell=note,
            level=level,
            where=where,
            exclude_cameras=[c.strip() for c in (exclude_cameras or "").split(",") if c.strip()],
            alpha=alpha,
            rerank=rerank,
        )
        size, level = len(opened), level or opened.level
        if not size:
            note(f"the gallery is empty; add images: resight gallery add {gallery} IMAGES")
    if sheet is not None:
        write_sheet(answers, sheet, tell=note)
    if json_:
        content = {"level": level, "gallery": size}
        print_json(content | {"queries": [answer.to_dict() for answer in answers]})
    else:
        _print(answers)
    if sheet is not None:
        console().print(f"sheet: {sheet}", markup=False)


def _print(answers: list[Answer]) -> None:
    from rich.console import Console

    screen = Console(highlight=False)
    if len(answers) > 3:
        screen.print(_one_line_each(answers))
        return
    for answer in answers:
        screen.print(_hits(answer))
        if answer.hits.no_match:
            screen.print(
                f"[yellow]no match[/]: things that are not in the gallery come as near as this "
                f"{_share(answer.hits.p_value)} of the time (alpha {answer.hits.alpha:.3g})"
            )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _hits(answer: Answer) -> Table:
    from rich.markup import escape
    from rich.table import Table

    truth = f" ({answer.object})" if answer.object is not None else ""
    table = Table(title=escape(f"{answer.path}{truth}"), title_justify="left")
    judged = any(hit.probability is not None for hit in answer.hits)
    heads = ["rank", "object", "similarity", *["probability"] * judged, "image", "images"]
    for column in heads:
        right = column in ("rank", "images", "probability")
        fold = column in ("object", "image")  # a path that is cut is no path
        justify: Literal["left", "right"] = "right" if right else "left"
        table.add_column(column, justify=justify, overflow="fold" if fold else "ellipsis")
    for hit in answer.hits:
        name = _marked(hit.object, answer.object)
        row = [str(hit.rank), name, f"{hit.similarity:.3f}", *[_share(hit.probability)] * judged]
        table.add_row(*row, escape(hit.path or f"image {hit.image}"), str(hit.images))
    return table


def _one_line_each(answers: list[Answer]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    truth = any(answer.object is not None for answer in answers)
    judged = any(answer.hits.no_match is not None for answer in answers)
    table = Table(
        *("query", "first hit", "similarity"),
        *["match"] * judged,
        *["rank of the right one"] * truth,
    )
    for answer in answers:
        if not answer.hits:
            continue
        first = answer.hits[0]
        right = [str(hit.rank) for hit in answer.hits if hit.object == answer.object]
        found = (right or [f"not in the first {len(answer.hits)}"])[0] if answer.object else ""
        name = _marked(first.object or Path(first.path).name, answer.object)
        query = answer.object or Path(answer.path).name
        match = "no match" if answer.hits.no_match else _share(first.probability)
        row = [escape(query), name, f"{first.similarity:.3f}", *[match] * judged]
        table.add_row(*row, *([found] * truth))
    return table


def _marked(name: str | None, truth: str | None) -> str:
    """The name of a hit; green or red where the query's object is known."""
    from rich.markup import escape

    text = escape(name) if name is not None else "unknown"
    if truth is None:
        return text
    return f"[green]✓ {text}[/]" if name == truth else f"[red]✗ {text}[/]"
