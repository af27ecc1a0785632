"""`resight sweep`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resight.cli import options
from resight.cli.common import note

if TYPE_CHECKING:
    from resight.train.catalogue import Sweep
    from resight.train.sweeps.carry import Reports
    from resight.train.sweeps.outcome import Row
    from resight.train.sweeps.plan import Trial
    from resight.train.sweeps.run import Result


def sweep(
    images: options.MaybeImages = None,
    config: options.Config = None,
    out: Annotated[Path | None, options.out("the folder of the sweep.")] = None,
    over: Annotated[
        list[str] | None, typer.Option(metavar="NAME=V1,V2", help="One setting and its values.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, e.g. 0,1,2.")] = None,
    set_: options.Set = None,
    weights: options.TrainedWeights = None,
    size: options.Size = None,
    minutes: options.Minutes = None,
    protocol: options.Protocols = None,
    baseline: options.Baseline = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Evaluate the weights as they come, too.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each run.")] = None,
    device: options.Device = None,
    workers: options.Workers = None,
    columns: options.Columns = None,
    layout: options.Layout = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the runs and stop.")] = False,
    json_: options.Json = False,
) -> None:
    """Train and evaluate one recipe under several settings and seeds, and compare them.

    Runs what the recipe's "sweep" says: every variant x every value x every seed. Each run is
    trained and evaluated on the test rows as by 'resight train' and 'resight evaluate'. The same
    command goes on where a sweep was stopped or killed; what failed is tried again. In --out then
    lie table.html (means, intervals, tests), table.csv and plot.png.

    Examples:

      resight sweep sop/ --config ablation_temperature --out sweeps/temperature

      resight sweep photos/ --config compare_losses --out sweeps/losses --jobs 2 --threads 1

      resight sweep photos/ --config small -o sweeps/lr --over lr=1e-4,3e-4,1e-3 --seeds 0,1,2
    """
    from resight.cli.common import print_json, read_set
    from resight.errors import UserError
    from resight.train.sweeps import outcome
    from resight.train.sweeps.carry import Options
    from resight.train.sweeps.run import sweep as carry

    if config is None:
        raise UserError("--config is missing: a recipe's name ('resight recipes') or a YAML file")
    base, trials = _trials(config, over or [], seeds, set_ or [], weights, size)
    if list_:
        for trial in trials:
            print(f"{trial.slug}  {trial.group}, seed {trial.seed}")
        return
    if images is None:
        raise UserError("IMAGES is missing: a folder, or a CSV or Parquet file")
    if out is None:
        raise UserError("--out is missing: the folder of the sweep")
    if minutes is not None and minutes <= 0:
        raise UserError(f"--minutes {minutes:g}: must be above 0")
    image_set = read_set(images, columns, layout)
    how = Options(jobs, threads, workers, minutes, tuple(protocol or ()), device)
    with _reports() as reports:
        try:
            result = carry(
                trials, image_set, out, how, reports,
                shared=base, baseline=baseline, start=untrained,
            )  # fmt: skip
        except KeyboardInterrupt:
            note("stopped; all is kept. The same command goes on")
            raise typer.Exit(130) from None
    if json_:
        print_json(_as_json(result))
    else:
        _print(outcome.rows(result.found))
    for path in result.files:
        note(f"written: {path}")
    for name, reason in result.fails.items():
        note(f"failed: {name}: {reason}")
    if result.fails:
        count = "1 run" if len(result.fails) == 1 else f"{len(result.fails)} runs"
        note(f"{count} failed; the same command tries again")
        raise typer.Exit(1)


def _trials(
    config: str,
    over: list[str],
    seeds: str | None,
    pairs: list[str],
    weights: str | None,
    size: str | None,
) -> tuple[dict[str, Any], list[Trial]]:
    """The settings that all runs share, and the runs, each checked."""
    from resight.cli.common import parse_size
    from resight.settings import apply_pairs
    from resight.train.catalogue import find_recipe, read_recipe
    from resight.train.sweeps import plan

    base, _, found = read_recipe(config)
    base = apply_pairs(base, pairs)
    shape = parse_size(size)
    given = {"weights": weights, "size": None if shape is None else list(shape)}
    base |= {name: value for name, value in given.items() if value is not None}
    own = [base.pop("seed")] if "seed" in base else None
    asked = _sweep(found, over, seeds, own)
    trials = plan.trials(base, asked, find_recipe(config).stem)
    names = ", ".join([*asked.variants, *asked.over])
    plan.check(trials, f"{config} ({names})" if names else config)
    return base, trials


def _sweep(found: Sweep | None, over: list[str], seeds: str | None, own: list[Any] | None) -> Sweep:
    """The recipe's sweep with what the command line says of it."""
    from resight.errors import UserError
    from resight.settings import build
    from resight.train.catalogue import Sweep
    from resight.train.sweeps.plan import parse_over

    values = found.model_dump() if found is not None else {}
    if own is not None and (found is None or "seeds" not in found.model_fields_set):
        values["seeds"] = own
    values["over"] = values.get("over", {}) | dict(parse_over(text) for text in over)
    if seeds is not None:
        try:
            values["seeds"] = [int(part) for part in seeds.split(",")]
        except ValueError:
            raise UserError(f"--seeds {seeds}: not whole numbers with commas between") from None
    return build(Sweep, values, "sweep")


@contextmanager
def _reports() -> Iterator[Reports]:
    """Lines on stderr, and on a terminal a bar over the runs."""
    from resight.cli.common import console
    from resight.train.sweeps.carry import Reports

    screen = console()
    if not screen.is_terminal:
        yield Reports(tell=note)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=screen, transient=True) as progress:
        bar = progress.add_task("runs", total=None, text="")
        yield Reports(
            tell=lambda line: screen.print(line, markup=False),
            step=lambda done, total, text: progress.update(
                bar, completed=done, total=total, text=text
            ),
        )


def _as_json(result: Result) -> dict[str, Any]:
    from resight.train.sweeps import outcome

    return {
        "groups": [row.to_dict() for row in outcome.rows(result.found)],
        "files": [str(path) for path in result.files],
        "failed": result.fails,
    }


def _print(rows: list[Row]) -> None:
    """A table a protocol: mean ± standard deviation over seeds, in percent."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    screen = Console(highlight=False)
    if not screen.is_terminal:  # a file has room
        screen = Console(highlight=False, width=160)
    for protocol in dict.fromkeys(row.protocol for row in rows):
        those = [row for row in rows if row.protocol == protocol]
        main = [those[0].primary, *(name for name in those[0].values if name.startswith("R@"))]
        names = [name for name in dict.fromkeys(main) if name in those[0].values][:4]
        table = Table(f"{protocol}, %", *names, "runs")
        for row in those:
            cells = [_cell(*row.values[name]) if name in row.values else "" for name in names]
            table.add_row(escape(row.group), *cells, str(row.runs))
        screen.print(table)
    if any(sd is not None for row in rows for _, sd in row.values.values()):
        screen.print("mean ± standard deviation over seeds")


def _cell(mean: float, sd: float | None) -> str:
    return f"{100 * mean:.2f}" + (f" ± {100 * sd:.2f}" if sd is not None else "")
