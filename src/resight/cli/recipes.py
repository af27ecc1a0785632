"""`resight recipes`: list, show and check them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from resight.cli import options

app = typer.Typer(
    help="List the recipes, with the published figures; show or check one.",
    rich_markup_mode=None,
    invoke_without_command=True,
)


@app.callback()
def recipes(
    context: typer.Context,
    json_: options.Json = False,
) -> None:
    """List the recipes: settings files for 'resight train' and 'resight sweep', by name.

    Beside each stand the published figures that it is after, in percent; "unverified" are those
    recalled from a paper and not read in a source.

    Examples:

      resight recipes

      resight recipes show smooth_ap_sop

      resight recipes check mine.yaml
    """
    if context.invoked_subcommand is not None:
        return
    from resight.cli.common import print_json
    from resight.train.catalogue import recipe_names

    rows = [_row(name) for name in recipe_names()]
    if json_:
        print_json(rows)
    else:
        _print(rows)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A recipe's name, or a file.")],
) -> None:
    """Print a recipe's file, to be read, or changed and given to --config.

    Examples:

      resight recipes show ctl_market1501

      resight recipes show small > mine.yaml
    """
    from resight.train.catalogue import find_recipe

    print(find_recipe(name).read_text(encoding="utf-8"), end="")


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names or files; by default all recipes.")
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="Make each network too (slow, without weights).")
    ] = False,
    json_: options.Json = False,
) -> None:
    """Check recipes without images: settings, backbone, protocol, figures, schedule, head.

    A line on stderr for each fault, and exit status 1.

    Examples:

      resight recipes check

      resight recipes check mine.yaml --build
    """
    from resight.cli.common import note, print_json
    from resight.train.catalogue import find_recipe, recipe_names
    from resight.train.recipe_check import faults

    paths = [find_recipe(name) for name in names or recipe_names()]
    found = [line for path in paths for line in faults(path, build=build)]
    if json_:
        print_json({"checked": len(paths), "faults": found})
        if found:
            raise typer.Exit(1)
        return
    for line in found:
        note(line)
    count = "1 recipe" if len(paths) == 1 else f"{len(paths)} recipes"
    if found:
        note(f"{count} checked, {len(found)} fault{'s' if len(found) > 1 else ''}")
        raise typer.Exit(1)
    print(f"{count} checked, no fault")


def _row(name: str) -> dict[str, Any]:
    """What the list says of a recipe."""
    from dataclasses import asdict

    from resight.train.catalogue import figures, find_recipe, published_lines, read_recipe

    path = find_recipe(name)
    values, about, sweep = read_recipe(path)
    recipe = values.get("recipe", "ctl")
    loss = values.get("loss")
    images, ids = values.get("images", 4), values.get("ids")
    memory = bool(values.get("memory"))
    if recipe in ("insclr", "graph"):  # whose batches are tuples, and whose defaults are these
        ids, images = values.get("tuples"), values.get("neighbours", 2) + values.get("views", 2)
        loss, memory = loss or "infonce", values.get("memory", True) is not None
    if recipe == "graph":
        loss = "soft targets"
    return {
        "name": name,
        "kind": "recipe" if sweep is None else "sweep",
        "recipe": recipe,
        "loss": (loss.get("name") if isinstance(loss, dict) else loss) or recipe,
        "memory": memory,
        "data": about.data,
        "backbone": values.get("backbone", "resnet50"),
        "size": values.get("size"),
        "ids": ids,
        "images": images,
        "batch": None if ids is None else ids * images,
        "protocols": about.protocols(),
        "published": [asdict(figure) for figure in figures(about)],
        "published_lines": published_lines(about),
        "file": str(path),
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    screen = Console(highlight=False)
    if not screen.is_terminal:  # a file has room
        screen = Console(highlight=False, width=200)
    table = Table(
        Column("name", no_wrap=True), "loss", "data", "backbone", "size", "batch", "published, %"
    )
    for row in rows:
        size = "x".join(map(str, row["size"])) if row["size"] else ""
        batch = str(row["batch"] or "")
        loss = row["loss"] + " + memory" * row["memory"] + ", a sweep" * (row["kind"] == "sweep")
        cells = (row["name"], loss, row["data"], row["backbone"], size, batch)
        table.add_row(*map(escape, cells), escape("\n".join(row["published_lines"])))
    screen.print(table)
    screen.print("'resight recipes show NAME' prints one; 'resight train --config NAME' uses it")
