"""`resight ask`: a page for a person, where no labels are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resight.cli import options

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet

A_HELP = options.MODEL_HELP + " Or features: a folder, or an (N, D) .npy in the order of IMAGES."


def ask(
    a: Annotated[str, typer.Argument(help=A_HELP)],
    b: Annotated[str, typer.Argument(help="The one to compare with it, named likewise.")],
    images: options.Images,
    out: Annotated[Path | None, options.out("the HTML page.")] = None,
    pairs: Annotated[
        int, typer.Option(min=10, max=200, help="Pairs of photos to ask about, two a photo.")
    ] = 40,
    seed: options.Seed = None,
    weights: options.Weights = None,
    size: options.Size = None,
    flip: options.Flip = False,
    scales: options.Scales = None,
    device: options.Device = None,
    workers: options.Workers = None,
    columns: options.Columns = None,
    layout: options.Layout = None,
    unlabelled: options.Unlabelled = False,
    strict: options.Strict = False,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Ask a person which of two embedders is better: a page of pairs where they differ.

    For photos without labels. "The same thing?" takes a few minutes to answer by three keys; the
    page saves answers.json, of which 'compare --answers' makes a difference with its interval.
    Features are kept beside the page, in OUT-features; interrupted, the same command goes on.

    Examples:

      resight ask runs/shop/start runs/shop photos/ --out ask.html

      resight ask features/old features/new photos/ --out ask.html --pairs 60
    """
    from resight.cli.common import (
        next_step,
        note,
        parse_scales,
        parse_size,
        print_json,
        progress_bar,
        read_set,
        take_device,
    )
    from resight.cli.compare import check_page
    from resight.errors import UserError
    from resight.evaluate.asking.make import ask as make
    from resight.features.options import EmbedOptions

    if out is None:
        raise UserError("--out is missing: the page, for example --out ask.html")
    check_page(out)
    how = EmbedOptions(None, flip, parse_scales(scales or "1"), workers, strict)
    take_device(device)
    image_set = read_set(images, columns, layout, unlabelled)
    network = _Network(weights, parse_size(size), how, force)
    network.check(a, b)
    kept = out.with_name(f"{out.stem}-features")
    first, second = (network.features(one, image_set, kept / n) for one, n in ((a, "a"), (b, "b")))
    with progress_bar("comparing", len(image_set)) as advance:

        def bar(what: str) -> Any:
            return lambda done, total: advance(done, total, what)

        found = make(
            first, second, out,
            images=image_set, names=(a, b), pairs=pairs, seed=seed or 0, bar=bar, tell=note,
        )  # fmt: skip
    if json_:
        content = {"page": found.page and str(found.page), "photos": found.photos}
        content |= {"copies": found.copies, "differ": found.differ}
        print_json(content | {"queries": found.queries, "pairs": found.pairs})
        return
    if found.page is None:
        print(
            f"{a} and {b} find the same nearest photo for all {found.photos:,} photos: "
            "there is nothing to ask"
        )
        return
    note(
        f"of {found.photos:,} photos {found.differ:,} have another nearest photo under {a} than "
        f"under {b}; {found.queries:,} of these are asked about, in {found.pairs:,} pairs"
    )
    if found.queries < pairs // 2:
        note(f"fewer than the {pairs} pairs asked for: these are all that there are")
    print(found.page, flush=True)
    note("open it in a browser, answer, and save the answers; then give the file saved")
    next_step("compare", "--answers", "answers.json")


class _Network:
    """What is told about embedding, for both models."""

    def __init__(self, weights: str | None, size: Any, how: Any, force: bool):
        self._weights, self._size, self._how, self._force = weights, size, how, force

    def check(self, *models: str) -> None:
        """Raise UserError when --weights or --size are given, and no backbone to give them to."""
        from resight.errors import UserError

        given = self._weights is not None or self._size is not None
        if given and not any(self._is_backbone(one) for one in models):
            raise UserError("--weights and --size go with a backbone's name; none is given")

    def features(self, model: str, images: ImageSet, out: Path) -> Any:
        """The features of a model on the images: stored ones, or made and kept at `out`."""
        from resight.cli.common import note, progress_bar, report_skipped
        from resight.evaluate.records.job import Job, read_features
        from resight.features.write import embed_images
        from resight.models.open import open_embedder

        if _is_stored(model):
            return read_features(Job(features=model), images).features
        backbone = self._is_backbone(model)
        embedder = open_embedder(
            model,
            weights=self._weights if backbone else None,
            size=self._size if backbone else None,
            tell=note,
        )
        with progress_bar(f"embedding with {model}", len(images)) as advance:
            made = embed_images(
                embedder, images, out,
                options=self._how, progress=advance, tell=note, force=self._force,
            )  # fmt: skip
        report_skipped(made.info.get("skipped", []))
        return made

    def _is_backbone(self, model: str) -> bool:
        from resight.models.embedder import embedder_folder

        return not _is_stored(model) and embedder_folder(model) is None


def _is_stored(model: str) -> bool:
    from resight.features.store import is_features

    return model.endswith(".npy") or is_features(model)
