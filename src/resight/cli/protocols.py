"""`resight protocols`."""

from __future__ import annotations

from typing import Annotated

import typer

from resight.cli import options


def protocols(
    name: Annotated[str | None, typer.Argument(help="One of them, or a YAML file.")] = None,
    json_: options.Json = False,
) -> None:
    """List the built-in protocols, or print one as YAML, to be changed and given to evaluate.

    Examples:

      resight protocols

      resight protocols market1501 > mine.yaml

      resight evaluate runs/reid photos/ --protocol mine.yaml
    """
    from resight.cli.common import print_json
    from resight.evaluate.catalogue import ENTRIES, protocol

    if name is not None:
        one = protocol(name)
        if json_:
            print_json(one.to_dict())
        else:
            print(f"# {one.title}; {one.metric}")
            print(one.to_yaml(), end="")
        return
    if json_:
        about = {entry.protocol.name: entry for entry in ENTRIES}
        print_json(
            [
                {"layout": entry.layout, "about": entry.about} | entry.protocol.to_dict()
                for entry in about.values()
            ]
        )
        return
    layout: str | None = None
    for entry in ENTRIES:
        one = entry.protocol
        if entry.layout != layout:
            layout = entry.layout
            print(f"{layout or 'any image set'}:")
        print(f"  {one.name:29} {one.metric:17} {entry.about}")
