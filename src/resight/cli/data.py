"""`resight data check` and `resight demo-data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli.data_check import check

app = typer.Typer(
    help="Look at an image set before work begins.", no_args_is_help=True, rich_markup_mode=None
)
app.command("check")(check)


@app.callback()
def _data() -> None:
    pass


def demo_data(
    out: Annotated[Path, typer.Argument(help="New folder for the pictures and index.csv.")],
    objects: Annotated[int, typer.Option(min=4, help="How many objects.")] = 240,
    images: Annotated[int, typer.Option(min=2, help="Pictures of each object.")] = 8,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Pixels a side.")] = 160,
    seed: Annotated[int, typer.Option(help="Another seed, other objects.")] = 0,
) -> None:
    """Draw a data set of photo-like pictures to try things on, offline.

    Examples:

      resight demo-data demo/images

      resight demo-data many --objects 1000 --images 12 --seed 7
    """
    from resight.cli.common import progress_bar
    from resight.data.rendered import render

    with progress_bar("drawing", objects * images) as advance:
        index = render(
            out,
            objects=objects,
            images=images,
            size=size,
            seed=seed,
            progress=advance,
            workers=None,
        )
    print(index)
