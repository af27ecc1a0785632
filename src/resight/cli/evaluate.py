"""`resight evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resight.cli.common import COLUMNS_HELP, IMAGES_HELP, LAYOUT_HELP
from resight.cli.embed import MODEL_HELP, SIZE_HELP, WEIGHTS_HELP

if TYPE_CHECKING:
    from resight.evaluate.scores import Scores

DEVICE_HELP = "Of the products: cpu, cuda, cuda:1 ...; the digits are the same."


def evaluate(
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    data: Annotated[
        Path | None, typer.Option(help=IMAGES_HELP + " By default, a run's own.")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            help="Name ('resight protocols' lists them) or YAML file; by default as the set asks.",
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Instead of MODEL: an (N, D) .npy in the order of the rows, or a folder."
        ),
    ] = None,
    similarity: Annotated[
        str | None,
        typer.Option(help="Instead of MODEL: a queries x gallery matrix, .npy or .npz[:NAME]."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="With --similarity: JSON, for each query the list of its positives."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option("--from", help="Do an evaluation folder again, and compare every digit."),
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="image, object (one centroid an object), or both.")
    ] = None,
    cross_camera: Annotated[
        bool | None,
        typer.Option(
            "--cross-camera/--no-cross-camera",
            help="Whether matches by the query's own camera are junk; by default where known.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for scores and report.html.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help=WEIGHTS_HELP)] = None,
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    scales: Annotated[
        str | None, typer.Option(help="Sum over image scales, e.g. 1,0.707,0.5.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Reading processes.")] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS_HELP)] = None,
    layout: Annotated[str | None, typer.Option(help=LAYOUT_HELP)] = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "cpu",
    memory: Annotated[
        int, typer.Option(min=16, help="MB that ranking may take beyond the features.")
    ] = 512,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad image.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure retrieval: mAP, R@K with 95 % intervals, and the protocol beside them.

    A benchmark in its own layout is evaluated by its own protocols. Of any other set the test rows
    are, or all rows if it has no splits: queries against gallery where the set has roles, else
    every image against all others; at image and at object level.

    Examples:

      resight evaluate runs/shop --out evaluation

      resight evaluate runs/reid --data Market-1501-v15.09.15/ --out evaluation

      resight evaluate runs/shop --data test.csv --protocol mine.yaml --json

      resight evaluate --features F.npy --data test.csv --level object

      resight evaluate --similarity S.npz --truth gt.json

      resight evaluate --from evaluation

      resight evaluate resnet50 --weights imagenet --size 224 --data photos/

      torchrun --nproc-per-node 4 --no-python resight evaluate --features F --out evaluation
    """
    from resight.cli.common import note, parse_columns, parse_scales, parse_size, print_json
    from resight.data.sources import load_images
    from resight.errors import UserError
    from resight.evaluate import run
    from resight.evaluate.ranking.units import check_device
    from resight.evaluate.records.job import Job
    from resight.evaluate.records.record import SCORES
    from resight.evaluate.share import join_processes, leave_processes
    from resight.features.store import is_features
    from resight.files import check_folder

    if level not in ("both", "image", "object", None):
        raise UserError(f"--level {level}: choose both, image or object")
    if model is not None and features is None and is_features(model):
        features, model = Path(model), None
    given = [name for name in (model, features, similarity, record) if name is not None]
    if len(given) != 1:
        raise UserError(
            "give one of MODEL (a run, an embedder, a backbone), --features, --similarity or --from"
        )
    check_device(device)
    if truth is not None and similarity is None:
        raise UserError("--truth goes with --similarity")
    if out is not None:
        check_folder(out, "an evaluation", mark=SCORES, force=True)
    if record is not None:
        _again(record, out, device, json_)
        return
    if model is not None and data is None:
        data = Path(str(model)) / "images.parquet"
        if not data.is_file():
            raise UserError("--data is missing: the images to evaluate on")
    images = None
    if data is not None:
        images = load_images(data, columns=parse_columns(columns), layout=layout)
    for line in images.notes if images is not None else ():
        note(line)
    job = Job(
        model=model,
        weights=weights,
        size=parse_size(size),
        features=None if features is None else str(features),
        similarity=similarity,
        truth=None if truth is None else str(truth),
        flip=flip,
        scales=None if scales is None else parse_scales(scales),
        workers=workers,
        strict=strict,
    )
    share = join_processes()
    if share is not None and model is not None:
        raise UserError("several processes share an evaluation of --features; embed first")
    wish = None if level in (None, "both") else level
    found = run.carry_out(
        job, images, tuple(protocol or ()), wish, cross_camera,  # type: ignore[arg-type]
        device=device, block_bytes=memory * 2**20, share=share, bar=_bar, tell=note,
    )  # fmt: skip
    if share is None or share.index == 0:
        page = None
        if out is not None:
            title = f"{given[0]} on {found.images.source}"
            page = run.write_folder(out, found.images, found.scores, title, found.job, found.origin)
        if json_:
            print_json(as_json([one.summary() for one in found.scores]))
        else:
            print_table(found.scores)
        if page is not None:
            note(f"report: {page}")
    if share is not None:
        leave_processes()


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
