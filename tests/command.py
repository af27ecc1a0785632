"""Run the command line in this process."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

TINY = "test_resnet"  # timm's own smallest ResNet, 0.4 million parameters


def resight(*words: str) -> int:
    """The exit status of `resight WORDS`."""
    from resight.cli.main import main

    with mock.patch.object(sys, "argv", ["resight", *words]):
        try:
            main()
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            return stop.code
    raise AssertionError("main always exits")


def verbs() -> dict[str, Any]:
    """Every verb by its words ("data check"), as a click command."""
    import typer

    from resight.cli.main import app

    found: dict[str, Any] = {}

    def walk(command: Any, words: str) -> None:
        children = getattr(command, "commands", {})
        if words and (not children or command.invoke_without_command):
            found[words] = command
        for name, child in children.items():
            walk(child, f"{words} {name}".strip())

    walk(typer.main.get_command(app), "")
    return found
