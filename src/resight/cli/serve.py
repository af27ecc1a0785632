"""`resight serve`: a gallery over HTTP, with its page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resight.cli import options


def serve(
    gallery: options.GalleryFolder,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine need --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option(help="File of keys, hashed; RESIGHT_KEYS may hold some too.")
    ] = None,
    new_key: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE", help="Add a key to --keys, print it once, stop: search, write or admin."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=64, help="Server processes that share the gallery.")
    ] = 1,
    reports: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluations, folders of them, or HTML pages to show; any number."),
    ] = None,
    device: options.Device = None,
    runtime: options.Runtime = None,
    set_: options.Set = None,
) -> None:
    """Serve a gallery: search, add, move and remove over HTTP, and a page for it all.

    Without keys only this machine may call. Ctrl-C stops it, when what was accepted is done.

    Examples:

      resight serve galleries/shop

      resight serve galleries/shop --reports evaluations

      resight serve galleries/shop --keys keys.txt --new-key admin

      resight serve galleries/shop --keys keys.txt --host 0.0.0.0 --processes 2 --set queue=128
    """
    from resight.cli.common import note
    from resight.errors import UserError

    if new_key is not None:
        from resight.serve.keys import make

        if keys is None:
            raise UserError("--new-key: --keys is missing, the file that it is added to")
        print(make(keys, new_key))
        note(f"its hash is in {keys}; the key itself is nowhere else: keep it")
        return

    from resight.serve.settings import Settings
    from resight.settings import apply_pairs, build

    told = {"host": host, "port": port, "keys": keys, "processes": processes, "device": device}
    told |= {"runtime": runtime}
    told["reports"] = [place.absolute() for place in reports or ()]
    settings = build(Settings, apply_pairs(dict(told), set_ or []), "--set")

    from resight.search.gallery import Gallery
    from resight.serve.reports import Reports
    from resight.serve.running import run

    Reports(settings.reports)  # what is wrong with one is said before anything starts
    with Gallery.open(gallery) as opened:
        images = opened.engine.counts()[0]
    if not images:
        note(f"the gallery is empty; add images: resight gallery add {gallery} IMAGES")
    run(gallery, settings, lambda address: _say(address, settings.keys is not None))


def _say(address: str, keys: bool) -> None:
    import os

    from resight.cli.common import note
    from resight.serve.keys import VARIABLE

    print(address, flush=True)
    if not keys and not os.environ.get(VARIABLE):
        note("no keys: only this machine can reach it, and whoever is on it may change the gallery")
