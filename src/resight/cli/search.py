"""`resight search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli.common import COLUMNS_HELP


def search(
    gallery: Annotated[Path, typer.Argument(help="Gallery folder (from 'resight index').")],
    queries: Annotated[
        list[Path], typer.Argument(help="Photos; or one folder, CSV or Parquet file of them.")
    ],
    k: Annotated[int, typer.Option("--hits", "-k", min=1, help="Objects for each query.")] = 10,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a picture: each query and its hits.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Of an image set, this many queries, evenly spread.")
    ] = 20,
    columns: Annotated[str | None, typer.Option(help=COLUMNS_HELP)] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad image.")] = False,
) -> None:
    """Search photos in a gallery: the most similar objects, best first.

    Of a labelled image set the truth is known: hits are marked right or wrong.

    Examples:

      resight search galleries/shop photo.jpg

      resight search galleries/shop a.jpg b.jpg -k 5 --sheet hits.png

      resight search galleries/shop test.csv --limit 30 --sheet hits.png --json
    """
    from resight.cli.common import console, note, parse_columns, print_json
    from resight.search.ask import ask, load_queries, write_sheet
    from resight.search.gallery import Gallery

    opened = Gallery.load(gallery)
    images = load_queries(queries, limit, parse_columns(columns))
    answers = ask(opened, images, k, strict=strict, tell=note)
    if sheet is not None:
        write_sheet(answers, sheet)
    if json_:
        content = {"level": opened.level, "gallery": len(opened)}
        print_json(content | {"queries": [answer.to_dict() for answer in answers]})
    else:
        _print(answers)
    if sheet is not None:
        console().print(f"sheet: {sheet}", markup=False)


def _print(answers: list) -> None:  # type: ignore[type-arg]
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    screen = Console()
    for answer in answers:
        truth = f" ({answer.object})" if answer.object is not None else ""
        table = Table(title=escape(f"{answer.path}{truth}"), title_justify="left")
        for column in ("rank", "object", "similarity", "image", "images"):
            table.add_column(column, justify="right" if column in ("rank", "images") else "left")
        for hit in answer.hits:
            name = escape(hit.object) if hit.object is not None else "unknown"
            if answer.object is not None:
                name = f"[green]✓ {name}[/]" if hit.object == answer.object else f"[red]✗ {name}[/]"
            row = (str(hit.rank), name, f"{hit.similarity:.3f}", escape(hit.path), str(hit.images))
            table.add_row(*row)
        screen.print(table)
