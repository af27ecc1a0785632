"""`resight push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resight.cli import options

if TYPE_CHECKING:
    from resight.models.embedder import Embedder

PLOT = "training.png"


def push(
    model: Annotated[str, typer.Argument(help="Run or embedder folder.")],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub; made if need be.")
    ],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluation folder of this embedder, for the card."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="For all to see; a new repository is private.")
    ] = False,
    json_: options.Json = False,
) -> None:
    """Upload an embedder to the hub: weights, configuration and a card with its scores.

    Afterwards hub:OWNER/NAME stands wherever a model is taken, here and elsewhere. It needs
    HF_TOKEN, a token that may write. Of files of this machine only names are told. No image is
    uploaded.

    Examples:

      resight push runs/shop me/shop-embedder

      resight push runs/shop me/shop-embedder --evaluation evaluations/shop --public

      resight index hub:me/shop-embedder photos/ --out galleries/shop
    """
    import json

    from resight.cli.common import free, next_step, note, print_json
    from resight.errors import UserError
    from resight.models.card import card
    from resight.models.embedder import CARD, CONFIG, WEIGHTS, Embedder, embedder_folder
    from resight.models.hub import PREFIX, check_name, is_hub_name, shown, upload
    from resight.train.curve import draw_curve

    check_name(repository, repository)
    folder = None if is_hub_name(model) else embedder_folder(model)
    if folder is None:
        raise UserError(f"{model}: no embedder; give the folder of an embedder or of a run")
    embedder = Embedder.load(folder, "cpu")  # nothing damaged is uploaded
    scores = [one for path in evaluation or [] for one in _scores(path, embedder)]
    content: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    content["info"] = shown(embedder.info)
    curve = draw_curve(folder.parent)
    text = card(
        content["config"],
        embedder.dim,
        content["info"],
        name=repository.partition("/")[2],
        place=PREFIX + repository,
        scores=scores,
        plot=PLOT if curve else None,
    )
    files: dict[str, Path | bytes] = {
        WEIGHTS: folder / WEIGHTS,
        CONFIG: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(),
        CARD: text.encode(),
    }
    files |= {PLOT: curve} if curve else {}
    note(f"uploading to {repository}, {'for all to see' if public else 'private if it is new'}:")
    for name, what in files.items():
        size = len(what) if isinstance(what, bytes) else what.stat().st_size
        note(f"  {name:20}{max(size, 1000) / 1e6:9,.3f} MB")
    address = upload(repository, files, public=public)
    if json_:
        print_json({"model": PREFIX + repository, "address": address, "files": list(files)})
        return
    print(address, flush=True)
    images = _images(folder, embedder)
    name = repository.partition("/")[2]
    where = [images, "--out", free(Path("galleries") / name)] if images else ["--help"]
    next_step("index", PREFIX + repository, *where)


def _scores(path: Path, embedder: Embedder) -> list[dict[str, Any]]:
    """Summaries of an evaluation. Raises UserError when it is of another embedder."""
    from resight.errors import UserError
    from resight.evaluate.protocols import Protocol
    from resight.evaluate.records.record import load_record

    record = load_record(path)
    if record.origin.get("embedder") != embedder.fingerprint():
        raise UserError(f"--evaluation {path}: of another embedder than the one to upload")
    data = Path(str(record.data.get("source", ""))).name
    return [
        dict(one)
        | {"data": data, "metric": Protocol.from_dict(dict(record.protocols[name])).metric}
        for name, one in record.summaries.items()
    ]


def _images(folder: Path, embedder: Embedder) -> str | None:
    """Images that a gallery could be made of: those of its run, or those that it was fitted to."""
    known = [folder.parent / "images.parquet"]
    known += [Path(str(one["source"])) for one in (embedder.info.get("fit"),) if one]
    return next((str(path) for path in known if path.exists()), None)
