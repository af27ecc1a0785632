"""`resight evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from resight.cli import options

if TYPE_CHECKING:
    from resight.evaluate.scores import Scores

MEASURED_HELP = (
    options.MODEL_HELP + " Or features: a folder, or an (N, D) .npy in the order of IMAGES."
    " With --similarity a matrix."
)


def evaluate(
    model: Annotated[str | None, typer.Argument(help=MEASURED_HELP)] = None,
    images: Annotated[
        Path | None, typer.Argument(help=options.IMAGES_HELP + " Runs and features bring theirs.")
    ] = None,
    protocol: options.Protocols = None,
    similarity: Annotated[
        bool,
        typer.Option(
            "--similarity", help="MODEL is a queries x gallery matrix, .npy or .npz[:NAME]."
        ),
    ] = False,
    truth: Annotated[
        Path | None,
        typer.Option(help="With --similarity: JSON, for each query the list of its positives."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option("--from", help="Do an evaluation folder again, and compare every digit."),
    ] = None,
    level: Annotated[
        str | None, typer.Option(help=f"{options.LEVEL_HELP}, or both (default).")
    ] = None,
    cross_camera: Annotated[
        bool | None,
        typer.Option(
            "--cross-camera/--no-cross-camera",
            help="Whether matches by the query's own camera are junk; by default where known.",
        ),
    ] = None,
    rerank: options.Rerank = None,
    transductive: Annotated[
        bool,
        typer.Option("--transductive", help="With --rerank: all queries together, not each alone."),
    ] = False,
    out: Annotated[Path | None, options.out("scores, results and report.html.")] = None,
    weights: options.Weights = None,
    size: options.Size = None,
    flip: options.Flip = False,
    scales: options.Scales = None,
    device: options.Device = None,
    workers: options.Workers = None,
    columns: options.Columns = None,
    layout: options.Layout = None,
    memory: Annotated[
        int, typer.Option(min=16, help="MB that ranking may take beyond the features.")
    ] = 512,
    strict: options.Strict = False,
    json_: options.Json = False,
) -> None:
    """Measure retrieval: mAP, R@K with 95 % intervals, and the protocol beside them.

    A benchmark in its own layout is evaluated by its own protocols. Of any other set the test rows
    are, or all rows if it has no splits: queries against gallery where the set has roles, else
    every image against all others; at image and at object level.

    Examples:

      resight evaluate runs/shop --out evaluation

      resight evaluate runs/reid Market-1501-v15.09.15/ --out evaluation

      resight evaluate runs/shop test.csv --protocol mine.yaml --json

      resight evaluate F.npy test.csv --level object

      resight evaluate S.npz --similarity --truth gt.json

      resight evaluate runs/shop --rerank aqe+diffusion --out reranked

      resight evaluate --from evaluation

      resight evaluate resnet50 photos/ --weights imagenet --size 224

      torchrun --nproc-per-node 4 --no-python resight evaluate features/shop --out evaluation
    """
    from resight.cli.common import (
        note,
        of_model,
        of_set,
        parse_scales,
        parse_size,
        print_json,
        read_set,
        take_device,
    )
    from resight.errors import UserError
    from resight.evaluate import run
    from resight.evaluate.ranking.units import check_device
    from resight.evaluate.records.job import Job
    from resight.evaluate.records.record import SCORES
    from resight.evaluate.share import join_processes, leave_processes
    from resight.files import check_folder

    if level not in ("both", "image", "object", None):
        raise UserError(f"--level {level}: choose both, image or object")
    if (model is None) == (record is None) or (record is not None and images is not None):
        raise UserError("give one MODEL (a run, an embedder, a backbone, features), or --from")
    if transductive and rerank is None:
        raise UserError("--transductive goes with --rerank")
    if truth is not None and not similarity:
        raise UserError("--truth goes with --similarity")
    products = device or "cpu"
    check_device(products)
    if out is not None:
        check_folder(out, "an evaluation", mark=SCORES, force=True)
    if record is not None:
        _again(record, out, products, json_)
        return
    assert model is not None
    kind = "similarity" if similarity else _kind(model)
    if kind == "model":
        if images is None:
            images = Path(model) / "images.parquet"
            if not images.is_file():
                raise UserError(f"{model}: IMAGES is missing: the images to evaluate on")
        take_device(device)
    image_set = read_set(images, columns, layout) if images is not None else None
    job = Job(
        model=model if kind == "model" else None,
        features=model if kind == "features" else None,
        similarity=model if kind == "similarity" else None,
        weights=weights,
        size=parse_size(size),
        truth=None if truth is None else str(truth),
        flip=flip,
        scales=None if scales is None else parse_scales(scales),
        workers=workers,
        strict=strict,
    )
    share = join_processes()
    if share is not None and kind == "model":
        raise UserError("several processes share an evaluation of features; embed first")
    wish = None if level in (None, "both") else level
    found = run.carry_out(
        job, image_set, tuple(protocol or ()), wish, cross_camera,  # type: ignore[arg-type]
        rerank=rerank, transductive=transductive, device=products,
        block_bytes=memory * 2**20, share=share, bar=_bar, tell=note,
    )  # fmt: skip
    if share is None or share.index == 0:
        page = None
        if out is not None:
            title = f"{model} on {found.images.source}"
            page = run.write_folder(out, found.images, found.scores, title, found.job, found.origin)
        if json_:
            print_json(as_json([one.summary() for one in found.scores]))
        else:
            print_table(found.scores)
        if page is not None:
            note(f"report: {page}")
        if not json_:
            _next(
                kind, [model, *of_model(weights, size)], of_set(images or "", columns, layout), out
            )
    if share is not None:
        leave_processes()


def _kind(model: str) -> Literal["model", "features"]:
    """What MODEL names: something that embeds, or features."""
    from resight.errors import UserError
    from resight.features.store import is_features

    if model.endswith(".npz"):
        raise UserError(f"{model}: an archive; of similarities say --similarity")
    return "features" if model.endswith(".npy") or is_features(model) else "model"


def _next(kind: str, model: list[str], images: list[str], out: Path | None) -> None:
    """What comes after the numbers: a gallery of what was measured, or a page of its own."""
    from resight.cli.common import free, next_step
    from resight.features.store import is_features

    name, *of_backbone = model
    given = images if images[0] else []
    if kind == "model":
        place = free(Path("galleries") / Path(name).name)
        next_step("index", name, *given, *of_backbone, "--out", place)
    elif is_features(name):
        next_step("index", name, "--out", free(Path("galleries") / Path(name).name))
    elif out is not None:
        next_step("report", out, "--out", out / "page.html")


def _bar(description: str, unit: str) -> Any:
    from resight.cli.common import progress_bar

    return progress_bar(description, None, unit)


def _again(record: Path, out: Path | None, device: str, json_: bool) -> None:
    """Repeat a recorded evaluation; exit status 1 where a digit differs."""
    from resight.cli.common import note, print_json
    from resight.evaluate import run
    from resight.evaluate.records.record import load_record

    stored = load_record(record)
    found = run.repeat(stored, device=device, bar=_bar, tell=note)
    if out is not None:
        title = f"{stored.folder} again"
        page = run.write_folder(out, found.images, found.scores, title, found.job, found.origin)
        note(f"report: {page}")
    differing = run.differences(stored, found.scores)
    changed = run.what_changed(stored, found.images, found.origin)
    if json_:
        content = as_json([one.summary() for one in found.scores])
        print_json(content | {"same": not differing, "differences": differing, "changed": changed})
    else:
        print_table(found.scores)
    if not differing:
        note(f"the same as {stored.folder}, to the last digit")
        return
    for line in differing[:10]:
        note(line)
    for line in changed:
        note(f"changed since: {line}")
    raise typer.Exit(1)


def as_json(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """One object: the first summary, with a second of the other level as `object_level`.

    Any other number of summaries stands under `scores`.
    """
    first, *others = summaries
    if len(summaries) <= 2 and len({one["level"] for one in summaries}) == len(summaries):
        return first | {f"{other['level']}_level": other for other in others}
    return {"scores": summaries}


def print_table(scores: list[Scores]) -> None:
    """The numbers in percent with their intervals, and the protocols that they mean."""
    from rich.console import Console
    from rich.table import Column, Table

    screen = Console(highlight=False)
    if not screen.is_terminal:  # a file has room
        screen = Console(highlight=False, width=160)
    summaries = [one.summary() for one in scores]
    names = list(dict.fromkeys(name for one in scores for name in one.names()))
    counts = [
        name
        for name in ("queries", "queries_without_match", "gallery", "dropped")
        if name in ("queries", "gallery") or any(s[name] for s in summaries)
    ]
    rows = {name: [_cell(s, name) for s in summaries] for name in names}
    rows |= {n.replace("_", " "): [f"{s[n]:,}" for s in summaries] for n in counts}
    if len(summaries) <= 3:
        labels = [one.protocol.name for one in scores]
        if [one.protocol.level for one in scores] == ["image", "object"]:
            labels = ["image level", "object level"]
        table = Table("", *labels)
        for name, cells in rows.items():
            table.add_row(name, *cells)
    else:  # many: a row each
        narrow = [n for n in rows if not n.startswith(("mINP", "MAP@R", "R-precision"))]
        table = Table(Column("protocol", no_wrap=True), *narrow)
        for i, one in enumerate(scores):
            table.add_row(one.protocol.name, *(rows[name][i].split(" ")[0] for name in narrow))
    screen.print(table)
    for summary in summaries:
        for value, numbers in summary.get("groups", {}).items():
            line = ", ".join(f"{n} {100 * v:.2f} %" for n, v in numbers.items() if n != "queries")
            screen.print(f"{value}: {line}", markup=False)
    for s in {(s["protocol"], s["title"], s["split"], s["ap"], s["ties"]) for s in summaries[:1]}:
        _, title, split, ap, ties = s
        part = f"{split} rows" if split else "all rows"
        screen.print(f"protocol: {title}; {part}; {ap} AP; ties {ties}")
    for one in scores[1:]:
        if one.protocol.title != scores[0].protocol.title:
            screen.print(f"{one.protocol.name}: {one.protocol.title}", markup=False)
    over = summaries[0]["intervals_over"]
    screen.print(f"in brackets: 95 % interval, bootstrap over {over}", markup=False)
    for line in dict.fromkeys(line for one in scores for line in one.notes()):
        screen.print(f"note: {line}", markup=False)


def _cell(summary: dict[str, Any], name: str) -> str:
    if name not in summary:
        return ""
    low, high = summary["intervals"].get(name, (None, None))
    known = low is not None and low == low
    return f"{100 * summary[name]:.2f} %" + (
        f" [{100 * low:.1f}, {100 * high:.1f}]" if known else ""
    )
