"""`resight whiten`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from resight.cli.common import COLUMNS_HELP, IMAGES_HELP, LAYOUT_HELP
from resight.cli.embed import MODEL_HELP, SIZE_HELP, WEIGHTS_HELP

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resight.data.imageset import ImageSet
    from resight.features.store import Features
    from resight.models.embedder import Embedder

DIMS, LEAST = 256, 8  # dimensions where none are asked for: a quarter of the images, in between


def whiten(
    model: Annotated[str, typer.Argument(help=MODEL_HELP + " Or a features folder.")],
    data: Annotated[Path | None, typer.Option("--data", help=IMAGES_HELP)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New embedder folder.")] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="Dimensions of the result; at most 256 by default.")
    ] = None,
    with_labels: Annotated[
        bool,
        typer.Option("--with-labels/--pca", help="Learn from the objects, or from images alone."),
    ] = False,
    power: Annotated[
        float | None,
        typer.Option(help="For --pca: 0.5 evens all axes out, 0 only turns. Default 0.5."),
    ] = None,
    weights: Annotated[str | None, typer.Option(help=WEIGHTS_HELP)] = None,
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    scales: Annotated[
        str | None, typer.Option(help="Image scales that it is learned for, e.g. 1,0.707,0.5.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Reading processes.")] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS_HELP)] = None,
    layout: Annotated[str | None, typer.Option(help=LAYOUT_HELP)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad image.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the embedder in --out.")] = False,
) -> None:
    """Give an embedder a whitening: fewer, more even dimensions, learned in one go.

    Common features then count for less, and rare ones tell things apart. --pca needs no labels;
    --with-labels evens out what differs between images of one object. Learned on the training
    rows of a set with splits, never on its test rows.

    Examples:

      resight whiten resnet50 --data photos/ --out whitened --weights imagenet --size 224

      resight whiten runs/shop --data catalogue.csv --out whitened --with-labels --dims 128

      resight whiten features/shop --out whitened --power 0.25
    """
    from resight.cli.common import note
    from resight.errors import UserError
    from resight.features.store import is_features
    from resight.files import check_folder, fresh_folder
    from resight.models.embedder import CONFIG
    from resight.models.whitening import whitened

    if out is None:
        raise UserError("--out is missing: the folder for the whitened embedder")
    if power is not None and with_labels:
        raise UserError("--power goes with --pca")
    if power is not None and not 0 <= power <= 1:
        raise UserError(f"--power {power:g}: not from 0 to 1")
    check_folder(out, "an embedder", mark=CONFIG, force=force)
    if is_features(model):
        given = {"--data": data, "--weights": weights, "--size": size, "--scales": scales}
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise UserError(f"{extra[0]}: {model} is a features folder, which says that itself")
        found = _stored(model, dims, with_labels)
    else:
        images = _images(data, columns, layout)
        embedder = _opened(model, weights, size, dims)
        found = _embedded(embedder, images, scales, workers, strict, with_labels)
    weight, bias, share = _learn(found, dims, power, with_labels)
    new, count = whitened(found.embedder, weight, bias), int(found.valid.sum())
    new.info["whitening"] = {
        "from": "labels" if with_labels else "images",
        "power": None if with_labels else 0.5 if power is None else power,
        "images": count,
        "variance_kept": round(share, 4),
        "scales": list(found.scales),
        "source": found.split.source,
        "fingerprint": found.split.fingerprint(),
    }
    fresh_folder(out, "an embedder", mark=CONFIG, force=force)
    new.save(out)
    note(
        f"{len(weight)} of {found.embedder.dim} dimensions, "
        f"with {100 * share:.1f} % of the variance of {count:,} images"
    )
    print(out)


class _Found(NamedTuple):
    """What is learned from: the rows `valid` (N,) of `features`; `split`: the set, with splits."""

    embedder: Embedder
    features: Features
    valid: NDArray[np.bool_]
    split: ImageSet
    scales: tuple[float, ...]


def _stored(folder: str, dims: int | None, with_labels: bool) -> _Found:
    from resight.features.store import Features
    from resight.features.write import require_made_by

    features, embedder = Features.load(folder, check=True), _opened(folder, None, None, dims)
    require_made_by(features, embedder, "this")
    rows, split = _training_rows(embedder, features.images, with_labels)
    scales = tuple(features.info["key"].get("scales", (1.0,)))
    # The rows are not taken out: they are read from the disk block by block.
    return _Found(embedder, features, features.valid & rows, split, scales)


def _embedded(
    embedder: Embedder,
    images: ImageSet,
    scales: str | None,
    workers: int | None,
    strict: bool,
    with_labels: bool,
) -> _Found:
    from resight.cli.common import parse_scales, progress_bar, report_skipped
    from resight.features.compute import EmbedOptions
    from resight.features.write import embed_images

    options = EmbedOptions(scales=parse_scales(scales or "1"), workers=workers, strict=strict)
    rows, split = _training_rows(embedder, images, with_labels)
    chosen = images.rows(rows.nonzero()[0].tolist())
    with progress_bar("embedding", len(chosen)) as advance:
        features = embed_images(embedder, chosen, options=options, progress=advance)
    report_skipped(features.info.get("skipped", []))
    return _Found(embedder, features, features.valid, split, options.scales)


def _opened(model: str, weights: str | None, size: str | None, dims: int | None) -> Embedder:
    from resight.cli.common import note, parse_size
    from resight.errors import UserError
    from resight.models.open import open_embedder
    from resight.models.whitening import check_plain

    embedder = open_embedder(model, weights=weights, size=parse_size(size), tell=note)
    check_plain(embedder)
    if dims is not None and dims > embedder.dim:
        raise UserError(f"--dims {dims}: the model has only {embedder.dim} dimensions")
    return embedder


def _images(data: Path | None, columns: str | None, layout: str | None) -> ImageSet:
    from resight.cli.common import note, parse_columns
    from resight.data.sources import load_images
    from resight.errors import UserError

    if data is None:
        raise UserError("--data is missing: the images to learn the whitening on")
    images = load_images(data, columns=parse_columns(columns), layout=layout)
    for line in images.notes:
        note(line)
    return images


def _training_rows(
    embedder: Embedder, images: ImageSet, with_labels: bool
) -> tuple[NDArray[np.bool_], ImageSet]:
    """Which rows (N,) are learned from, and the set with the splits that say so.

    A set without splits is split as `train` does it where its labels are used, or the embedder was
    trained on it; `evaluate` then keeps to the test objects. Raises UserError when no row is left.
    """
    from resight.cli.common import note
    from resight.data.splits import hold_out_test
    from resight.errors import UserError
    from resight.evaluate.records.job import as_trained

    if with_labels and not images.objects():
        raise UserError(f"{images.source}: no labels; --with-labels needs objects, --pca does not")
    total = f"{len(images):,}"
    if not images.has("split"):
        images = hold_out_test(images) if with_labels else as_trained(embedder, images, _silent)
        if images.has("split"):
            note("no splits given: 30 % of the objects are held out as test, as in training")
    split = images.table["split"]
    if images.has("split"):
        wanted = "train" if (split == "train").any() else None
        rows = (split.is_null() if wanted is None else split.eq_missing(wanted)).to_numpy()
        if not rows.any():
            names = ", ".join(sorted(split.drop_nulls().unique().to_list()))
            raise UserError(
                f"{images.source}: no training rows (its splits: {names}); a whitening is not "
                "learned on what it is measured on: give --data another set"
            )
        note(f"learned on {int(rows.sum()):,} training images of {total}; no test image is used")
    else:
        rows = split.is_null().to_numpy()
        note(f"no splits given: learned on all {total} images, without labels")
    return rows, images


def _silent(line: str) -> None:
    """For what `note` says better here."""


def _learn(
    found: _Found, dims: int | None, power: float | None, with_labels: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Weight, bias, and the share of the variance kept. Raises UserError: too few images."""
    from resight.cli.common import note
    from resight.errors import UserError
    from resight.models.whitening import kept_share, learned_whitening, pca_whitening

    features, valid = found.features, found.valid
    count = int(valid.sum())
    if dims is None:
        dims = min(DIMS, features.shape[1], max(LEAST, count // 4))
        note(f"{dims} dimensions, for {count:,} images (--dims decides)")
    try:
        if with_labels:
            codes = _codes(features.images)
            weight, bias = learned_whitening(features, codes, dims, valid=valid, tell=note)
        else:
            power = 0.5 if power is None else power
            weight, bias = pca_whitening(features, dims, power=power, valid=valid, tell=note)
    except ValueError as error:
        raise UserError(f"{features.images.source}: {error}") from None
    return weight, bias, kept_share(features, weight, valid=valid)


def _codes(images: ImageSet) -> NDArray[np.int64]:
    """The objects as numbers (N,), -1 where unknown."""
    import numpy as np

    numbers = {name: k for k, name in enumerate(images.objects())}
    codes = [-1 if name is None else numbers[name] for name in images.table["object"]]
    return np.array(codes, np.int64)
