"""`resight data check` and `resight demo-data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli import options
from resight.cli.data_check import check

app = typer.Typer(
    help="Look at an image set before work begins.", no_args_is_help=True, rich_markup_mode=None
)
app.command("check")(check)


@app.callback()
def _data() -> None:
    pass


def demo_data(
    out: Annotated[Path, options.out("the pictures and index.csv, into a new folder.")],
    objects: Annotated[int, typer.Option(min=4, help="How many objects.")] = 240,
    pictures: Annotated[int, typer.Option(min=2, help="Pictures of each object.")] = 8,
    pixels: Annotated[int, typer.Option(min=32, max=1024, help="Pixels a side.")] = 160,
    seed: options.Seed = None,
    workers: options.Workers = None,
    json_: options.Json = False,
) -> None:
    """Draw a data set of photo-like pictures to try things on, offline.

    Examples:

      resight demo-data --out demo/images

      resight demo-data --out many --objects 1000 --pictures 12 --seed 7
    """
    from resight.cli.common import next_step, print_json, progress_bar
    from resight.data.rendered import render

    with progress_bar("drawing", objects * pictures) as advance:
        index = render(
            out,
            objects=objects,
            images=pictures,
            size=pixels,
            seed=seed or 0,
            progress=advance,
            workers=None if workers is None else max(1, workers),
        )
    if json_:
        print_json({"index": str(index), "images": objects * pictures})
        return
    print(index, flush=True)
    next_step("data", "check", index)
