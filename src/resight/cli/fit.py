"""`resight fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resight.cli import options

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet
    from resight.models.embedder import Embedder
    from resight.train.fitting.fit import Fitted
    from resight.train.fitting.plan import Plan

METHOD_HELP = "raw, whitening, neighbours, joined or discriminant (labels); by default chosen."
DEPTHS_HELP = "Depths whose maps are joined, e.g. 2,3,4; by default chosen."
SHRINK_HELP = "Share of the covariance within objects replaced by a round one, 0 to 1."
_WORK = ".fitting"  # features of all candidates, until the embedder is there


def fit(
    model: options.ModelOrFeatures,
    images: options.MaybeImages = None,
    out: Annotated[Path | None, options.out("the embedder folder.")] = None,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP)] = None,
    depths: Annotated[str | None, typer.Option(help=DEPTHS_HELP)] = None,
    grid: Annotated[
        int | None, typer.Option(min=1, max=7, help="Cells a side that maps are averaged in.")
    ] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="Dimensions of the result; at most 256 by default.")
    ] = None,
    shrink: Annotated[float | None, typer.Option(min=0, max=1, help=SHRINK_HELP)] = None,
    unlabelled: options.Unlabelled = False,
    weights: options.Weights = None,
    size: options.Size = None,
    scales: options.Scales = None,
    seed: options.Seed = None,
    device: options.Device = None,
    workers: options.Workers = None,
    columns: options.Columns = None,
    layout: options.Layout = None,
    strict: options.Strict = False,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Fit an embedder in closed form: no training, seconds beside the embedding itself.

    Of a backbone, the maps at several depths are joined and projected; of a trained embedder, its
    vectors. Labels are used where there are any: depths, grid and projection are then chosen on
    objects held out. Never fitted to the test rows of a set with splits. Interrupted? Run it again.

    Examples:

      resight fit auto photos/ --out embedders/shop

      resight fit auto photos/ --out embedders/mine --unlabelled

      resight fit resnet50 catalogue.csv -o embedders/r50 --weights imagenet --size 224 --dims 128

      resight fit runs/shop catalogue.csv -o embedders/again

      resight fit features/shop -o embedders/white --method whitening
    """
    import shutil

    from resight.cli.common import (
        free,
        next_step,
        note,
        of_set,
        print_json,
        take_device,
    )
    from resight.errors import UserError
    from resight.features.store import is_features
    from resight.files import check_folder, fresh_folder
    from resight.models.embedder import CONFIG
    from resight.train.fitting.candidates import METHODS, Wish

    if out is None:
        raise UserError("--out is missing: the folder for the embedder")
    take_device(device)
    seed = seed or 0
    if method is not None and method not in METHODS:
        raise UserError(f"--method {method}: choose one of {', '.join(METHODS)}")
    work = out.parent / f"{out.name}{_WORK}"
    check_folder(out, "an embedder", mark=CONFIG, force=force)
    wish = Wish(method, _numbers(depths), grid, dims, shrink)  # type: ignore[arg-type]
    if is_features(model):
        given: dict[str, object] = {
            "IMAGES": images,
            "--weights": weights,
            "--size": size,
            "--scales": scales,
        }
        given |= {"--depths": depths, "--grid": grid}
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise UserError(f"{extra[0]}: {model} is a features folder, which says that itself")
        found = _to_features(model, wish, unlabelled, seed)
    else:
        image_set = _images(images, columns, layout)
        embedder = _opened(model, weights, size, image_set)
        found = _to_images(
            embedder, image_set, wish, unlabelled, seed, work, scales, workers, strict
        )
    fresh_folder(out, "an embedder", mark=CONFIG, force=force)
    found.embedder.save(out)
    shutil.rmtree(work, ignore_errors=True)
    if json_:
        print_json(_as_json(found, out))
        return
    _tell(found)
    if dims is not None and found.embedder.dim < dims:
        note(
            f"{found.embedder.dim} dimensions instead of {dims}: the images differ in no more "
            "directions"
        )
    print(out, flush=True)
    source = of_set(images or Path(model) / "images.parquet", columns, layout)
    if found.plan.images.has_matches():
        next_step("evaluate", out, *source)
    else:
        next_step("index", out, *source, "--out", free(Path("galleries") / out.name))


def _to_images(
    embedder: Embedder,
    images: ImageSet,
    wish: Any,
    unlabelled: bool,
    seed: int,
    work: Path,
    scales: str | None,
    workers: int | None,
    strict: bool,
) -> Fitted:
    from resight.cli.common import parse_scales, progress_bar, report_skipped
    from resight.features.compute import EmbedOptions
    from resight.train.fitting import fit as fitting

    options = EmbedOptions(scales=parse_scales(scales or "1"), workers=workers, strict=strict)
    plan = _planned(embedder, images, unlabelled, seed)
    with progress_bar("embedding", len(plan.images)) as advance:
        found = fitting.fit(embedder, plan, wish=wish, out=work, options=options, progress=advance)
    report_skipped(list(found.skipped))
    return found


def _to_features(folder: str, wish: Any, unlabelled: bool, seed: int) -> Fitted:
    from resight.features.store import Features
    from resight.features.write import require_made_by
    from resight.models.embedder import Embedder
    from resight.train.fitting import fit as fitting

    features, embedder = Features.load(folder, check=True), Embedder.load(folder)
    require_made_by(features, embedder, "this")
    plan = _planned(embedder, features.images, unlabelled, seed)
    return fitting.fit_features(embedder, features, plan, wish=wish)


def _planned(embedder: Embedder, images: ImageSet, unlabelled: bool, seed: int) -> Plan:
    from resight.cli.common import note
    from resight.train.fitting.plan import plan_rows

    plan = plan_rows(embedder, images, unlabelled=unlabelled, seed=seed)
    for line in plan.notes:
        note(line)
    return plan


def _images(images: Path | None, columns: str | None, layout: str | None) -> ImageSet:
    """With their objects, also where these aren't used: by them test rows are known."""
    from resight.cli.common import note, parse_columns
    from resight.data.sources import load_images
    from resight.errors import UserError

    if images is None:
        raise UserError("IMAGES is missing: a folder, or a CSV or Parquet file")
    found = load_images(images, columns=parse_columns(columns), layout=layout)
    for line in found.notes:
        note(line)
    return found


def _opened(model: str, weights: str | None, size: str | None, images: ImageSet) -> Embedder:
    from resight.cli.common import note, parse_size
    from resight.models.embedder import embedder_folder
    from resight.models.open import open_embedder
    from resight.train.prepare import size_for

    wanted = parse_size(size)
    if wanted is None and embedder_folder(model) is None and not Path(model).exists():
        wanted = size_for(images, note)
    return open_embedder(model, weights=weights, size=wanted, tell=note)


def _numbers(text: str | None) -> tuple[int, ...] | None:
    from resight.errors import UserError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--depths {text}: not whole numbers with commas between") from None


def _tell(found: Fitted) -> None:
    """The candidates' scores, what was taken, and what it cost."""
    from resight.cli.common import note

    shown = list(found.table[:5])
    for name in ("whitening", "raw"):
        shown += [one for one in found.table if one.candidate.method == name][:1]
    for k, one in enumerate(shown):
        if one in shown[:k]:
            continue
        scores = f"mAP {100 * one.scores['mAP']:5.1f}  R@1 {100 * one.scores['R@1']:5.1f}"
        note(f"  {scores}  {one.candidate.words()}")
    why = f"best of {len(found.table)} on held-out objects" if found.table else "the default"
    note(f"{found.chosen.words()}: {why}, {_labels(found)}")
    seconds = found.seconds
    note(
        f"{found.embedder.dim} dimensions; embedding {seconds.get('embedding', 0):.1f} s, "
        f"fitting {seconds['fitting']:.1f} s"
    )


def _labels(found: Fitted) -> str:
    return "with labels" if found.plan.labelled else "without labels"


def _as_json(found: Fitted, out: Path) -> dict[str, Any]:
    return {
        "embedder": str(out),
        "chosen": vars(found.chosen),
        "labels": found.plan.labelled,
        "dimensions": found.embedder.dim,
        "seconds": found.seconds,
        "candidates": [vars(one.candidate) | one.scores for one in found.table],
    }
