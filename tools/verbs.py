"""Write docs/verbs.md: every verb with its things and options, from the command line itself.

python tools/verbs.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from resight.cli.main import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "verbs.md"
HEAD = """\
# Verbs

    resight VERB MODEL-OR-GALLERY IMAGES --options

Things are positional and stand in this order; choices are options, and the same choice has the same
name and meaning in every verb. MODEL is the folder of a run or an embedder, `hub:OWNER/NAME`, or a
backbone's name; IMAGES a folder, or a CSV or Parquet file ([image sets](files.md)). Two options
name a thing, as with them nothing else is given: `train --resume RUN` and `evaluate --from
EVALUATION`.

Results go to stdout, one JSON object with `--json`; notes go to stderr. The last note is the next
command to type. Exit status: 0 done, 1 faults were found (`data check`, `recipes check`,
`evaluate --from`, `sweep`), 2 a mistake that one line explains, 130 stopped.

This page is written by `tools/verbs.py`; `resight VERB --help` says the same.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(words, one) for words, one in verbs())


def verbs() -> list[tuple[str, Any]]:
    """Every verb by its words ("data check"), in the order of the help."""
    found: list[tuple[str, Any]] = []

    def walk(command: Any, words: str) -> None:
        children = getattr(command, "commands", {})
        if words and (not children or command.invoke_without_command):
            found.append((words, command))
        for name, child in children.items():
            walk(child, f"{words} {name}".strip())

    walk(typer.main.get_command(app), "")
    return found


def _section(words: str, command: Any) -> str:
    text = (command.help or "").replace("\b", "")
    first = " ".join(text.split("\n\n")[0].split())
    things, options = [], []
    for one in command.params:
        if one.param_type_name == "argument":
            name = (one.metavar or one.name).upper()
            name = (name if one.required else f"[{name}]") + "..." * (one.nargs == -1)
            things.append((name, _text(one.help)))
        elif "--help" not in one.opts:
            options.append((_names(one, command), _text(one.help) + _default(one)))
    call = " ".join(["resight", words, *(name for name, _ in things)])
    examples = [
        line.strip() for line in re.findall(r"^\s+(\w+ .*resight .+|resight .+)$", text, re.M)
    ]
    lines = [f"\n## {words}", f"\n`{call}`: {first}"]
    if things or options:
        lines += ["\n| | |", "| --- | --- |"]
        lines += [f"| `{name}` | {what} |" for name, what in [*things, *options]]
    if examples:
        lines += ["", *(f"    {line}" for line in examples)]
    return "\n".join(lines) + "\n"


def _text(help_: str | None) -> str:
    return " ".join((help_ or "").split()).replace("|", "\\|")


def _default(option: Any) -> str:
    """What holds without it, and whether it may come several times."""
    told = "" if option.is_flag or option.default is None else f" [{option.default}]"
    return told + (" Several times for several." if option.multiple else "")


def _names(option: Any, command: Any) -> str:
    """ "--out PATH, -o" """
    names = sorted(option.opts, key=lambda name: not name.startswith("--")) + option.secondary_opts
    if not option.is_flag:
        context = command.make_context(command.name, [], resilient_parsing=True)
        said = option.get_help_record(context)[0].lower()
        kinds = {"path": "PATH", "int": "N", "float": "X", "name=": option.metavar or ""}
        names[0] += " " + next((kind for key, kind in kinds.items() if key in said), "TEXT")
    return ", ".join(names)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
