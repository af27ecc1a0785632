"""`resight search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resight.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from resight.search.ask import Answer


def search(
    gallery: Annotated[Path, typer.Argument(help="Gallery folder (from 'resight index').")],
    images: Annotated[
        list[Path], typer.Argument(help="Photos; or one folder, CSV or Parquet file of them.")
    ],
    k: Annotated[int, typer.Option("--hits", "-k", min=1, help="Objects for each query.")] = 10,
    sheet: options.Sheet = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Of an image set, this many queries, evenly spread.")
    ] = 20,
    columns: options.Columns = None,
    layout: options.Layout = None,
    unlabelled: options.Unlabelled = False,
    device: options.Device = None,
    workers: options.Workers = None,
    json_: options.Json = False,
    strict: options.Strict = False,
) -> None:
    """Search photos in a gallery: the most similar objects, best first.

    Of a labelled image set the truth is known: hits are marked right or wrong.

    Examples:

      resight search galleries/shop photo.jpg

      resight search galleries/shop a.jpg b.jpg -k 5 --sheet hits.png

      resight search galleries/shop test.csv --limit 30 --sheet hits.png --json
    """
    from resight.cli.common import console, note, parse_columns, print_json, take_device
    from resight.search.ask import ask, load_queries, write_sheet
    from resight.search.gallery import Gallery

    take_device(device)
    opened = Gallery.load(gallery)
    queries = load_queries(images, limit, parse_columns(columns), layout, unlabelled)
    answers = ask(opened, queries, k, workers=workers or 0, strict=strict, tell=note)
    if sheet is not None:
        write_sheet(answers, sheet, tell=note)
    if json_:
        content = {"level": opened.level, "gallery": len(opened)}
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


def _hits(answer: Answer) -> Table:
    from rich.markup import escape
    from rich.table import Table

    truth = f" ({answer.object})" if answer.object is not None else ""
    table = Table(title=escape(f"{answer.path}{truth}"), title_justify="left")
    for column in ("rank", "object", "similarity", "image", "images"):
        table.add_column(column, justify="right" if column in ("rank", "images") else "left")
    for hit in answer.hits:
        name = _marked(hit.object, answer.object)
        row = (str(hit.rank), name, f"{hit.similarity:.3f}", escape(hit.path), str(hit.images))
        table.add_row(*row)
    return table


def _one_line_each(answers: list[Answer]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    truth = any(answer.object is not None for answer in answers)
    table = Table("query", "first hit", "similarity", *(["rank of the right one"] * truth))
    for answer in answers:
        if not answer.hits:
            continue
        first = answer.hits[0]
        right = [str(hit.rank) for hit in answer.hits if hit.object == answer.object]
        found = (right or [f"not in the first {len(answer.hits)}"])[0] if answer.object else ""
        name = _marked(first.object or Path(first.path).name, answer.object)
        query = answer.object or Path(answer.path).name
        table.add_row(escape(query), name, f"{first.similarity:.3f}", *([found] * truth))
    return table


def _marked(name: str | None, truth: str | None) -> str:
    """The name of a hit; green or red where the query's object is known."""
    from rich.markup import escape

    text = escape(name) if name is not None else "unknown"
    if truth is None:
        return text
    return f"[green]✓ {text}[/]" if name == truth else f"[red]✗ {text}[/]"
