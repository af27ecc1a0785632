"""Run the command line in this process."""

from __future__ import annotations

import sys
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
