"""The command `resight`: one small module a verb. Heavy imports wait inside the verbs."""

from __future__ import annotations

import copy
import os
import sys

import typer

from resight import __version__
from resight.cli import (
    ask,
    compare,
    data,
    demo,
    embed,
    evaluate,
    export,
    fit,
    gallery,
    index,
    protocols,
    push,
    recipes,
    report,
    search,
    serve,
    sweep,
    train,
)
from resight.errors import UserError, explain_os_error

# Typer carries its own copy of click or uses the installed one, by version; the base class of
# what it exports is the right one in both.
_ClickError: type[Exception] = typer.BadParameter.__bases__[0].__bases__[0]

app = typer.Typer(
    name="resight",
    help="Find the same thing again: train, search and measure image instance retrieval.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the formatted help costs 0.2 s of imports
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        print(f"resight {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    context.obj = app  # all verbs, for one that calls others


app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(gallery.app, name="gallery")
app.command("demo-data")(data.demo_data)
app.command("train")(train.train)
app.command("sweep")(sweep.sweep)
app.command("embed")(embed.embed)
app.command("fit")(fit.fit)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("serve")(serve.serve)
app.command("evaluate")(evaluate.evaluate)
app.command("protocols")(protocols.protocols)
app.command("compare")(compare.compare)
app.command("ask")(ask.ask)
app.command("report")(report.report)
app.command("push")(push.push)
app.command("export")(export.export)
app.command("demo")(demo.demo)


def _asked() -> typer.Typer:
    """The command line with the verb that is asked for alone: making all takes a tenth of a second.

    Where no verb is named, or none of this name is there, all of them.
    """
    verb = next(iter(sys.argv[1:]), "")
    part = copy.copy(app)
    part.registered_commands = [one for one in app.registered_commands if one.name == verb]
    part.registered_groups = [one for one in app.registered_groups if one.name == verb]
    return part if part.registered_commands or part.registered_groups else app


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit status 2."""
    try:
        status = _asked()(standalone_mode=False)
    except typer.Exit as stop:
        status = stop.exit_code
    except UserError as error:
        status = _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = _complain("stopped", 130)
    except BrokenPipeError:
        # The reader of our output went away (| head): not an error; keep the interpreter from
        # complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except OSError as error:
        status = _complain(explain_os_error(error))
    except _ClickError as error:
        where = getattr(error, "ctx", None)
        ask = f" (see '{where.command_path} --help')" if where is not None else ""
        text = str(getattr(error, "format_message", error.__str__)())
        status = _complain(" ".join(text.split()) + ask)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str, status: int = 2) -> int:
    lines = message.splitlines() or [""]
    for line in lines:
        print(f"resight: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
