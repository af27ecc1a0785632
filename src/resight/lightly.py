"""timm and torchvision, imported without torch's compiler.

Both touch the compiler `torch._dynamo` while they are imported, for two functions that matter
only to code that is compiled: `is_compile_supported` (torchvision.ops.roi_align) and `disable`
(a decorator, in timm's naflexvit). The compiler and what it stands on (sympy, inductor) cost more
than all else that a search imports beside torch, and nothing here compiles. So while the two are
imported, stand-ins hold the place of these functions; they ask the real ones when they are called.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

_NAMES = ("torch._dynamo", "torch._dynamo.utils")


def timm() -> Any:
    """The module timm."""
    return _lightly("timm")


def transforms() -> Any:
    """The module torchvision.transforms.v2."""
    return _lightly("torchvision.transforms.v2")


def _lightly(name: str) -> Any:
    """The module of this name; where its import asks the compiler for more, it is all imported."""
    if name in sys.modules or any(module in sys.modules for module in _NAMES):
        return importlib.import_module(name)
    before = set(sys.modules)
    sys.modules.update(_stand_ins())
    try:
        found = importlib.import_module(name)
    except (ImportError, AttributeError):
        found = None
    finally:
        for module in _NAMES:
            sys.modules.pop(module, None)
        vars(torch).pop("_dynamo", None)  # the import of a part of torch sets it
    if found is None:
        for module in set(sys.modules) - before:
            if module.split(".")[0] in ("timm", "torchvision"):
                del sys.modules[module]
        found = importlib.import_module(name)
    return found


def _stand_ins() -> dict[str, ModuleType]:
    made = {name: ModuleType(name) for name in _NAMES}
    compiler, utils = made.values()
    compiler.__path__ = []
    vars(compiler).update(utils=utils, disable=_disable)
    vars(utils).update(is_compile_supported=_is_compile_supported)
    return made


def _is_compile_supported(device_type: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))


def _disable(function: Callable[..., Any], *given: Any, **named: Any) -> Callable[..., Any]:
    """What the compiler's `disable` gives for `function`, made when it is first called."""
    made: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*words: Any, **more: Any) -> Any:
        if not made:
            made.append(torch.compiler.disable(function))  # type: ignore[no-untyped-call]
        return made[0](*words, **more)

    return call
