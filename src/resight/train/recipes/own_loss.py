"""A loss of one's own, from a Python file that defines one class whose name ends in "Loss".

The class is a torch module, called as the losses of `resight.losses` are. What its `__init__`
names it is given: `classes` and `features` by the training, the rest from the options. The file is
run when a training asks for it, and never to load an embedder.
"""

from __future__ import annotations

import inspect
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from torch import nn

from resight.checksums import file_sum
from resight.errors import UserError

_MODULE = "resight_own_loss"
_ASKED = "a loss file defines one class, a torch module whose name ends in Loss"


def found(values: dict[str, Any]) -> dict[str, Any]:
    """The settings with the file's full path and its sum, unless they hold a sum already.

    Raises UserError when there is no such file.
    """
    path = Path(str(values["file"])).absolute()
    if not path.is_file():
        raise UserError(f"--loss {values['file']}: no such file; {_ASKED}")
    return {"sha256": file_sum(path)} | values | {"file": str(path)}


def load(file: str, sha256: str, options: dict[str, Any], classes: int, features: int) -> nn.Module:
    """The loss, made. Raises UserError: the file is not what it was, or doesn't do."""
    path = Path(file)
    if file_sum(path) != sha256:
        raise UserError(
            f"{path}: not the file that this run began with; put that back, or start a new run"
        )
    kind = _class_of(path)
    known = inspect.signature(kind).parameters
    given = {"classes": classes, "features": features}
    try:
        loss: nn.Module = kind(**{k: v for k, v in given.items() if k in known} | options)
    except Exception as error:
        raise UserError(f"{path}: {kind.__name__} can't be made: {_words(error)}") from None
    return loss


def _class_of(path: Path) -> type[nn.Module]:
    spec = spec_from_file_location(_MODULE, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path}: can't be run: {_words(error)}") from None
    kinds = [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, nn.Module)
        and one.__module__ == _MODULE
        and one.__name__.endswith("Loss")
    ]
    if len(kinds) != 1:
        names = ", ".join(one.__name__ for one in kinds) or "none"
        raise UserError(f"{path}: {_ASKED}; here is {names}")
    return kinds[0]


def _words(error: Exception) -> str:
    line = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {line}{' '.join(str(error).split())[:200]}"
