"""timm, torchvision and torch's optimizers without torch's compiler, until somebody compiles.

They touch the compiler `torch._dynamo` for a few functions that matter only to what is compiled:
`is_compile_supported` (torchvision.ops.roi_align), `disable` (timm's naflexvit, every optimizer)
and `graph_break` (every step). The compiler and what it stands on (sympy, inductor) cost more than
all else that is imported beside torch, and nothing here compiles. So stand-ins hold its place: they
have these functions, and whoever asks for anything else of it gets the compiler itself.
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
    spare_compiler()
    return importlib.import_module("timm")


def transforms() -> Any:
    """The module torchvision.transforms.v2."""
    spare_compiler()
    return importlib.import_module("torchvision.transforms.v2")


def be_deterministic(wanted: bool) -> None:
    """`torch.use_deterministic_algorithms`, warnings only, that imports no compiler."""
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(wanted, warn_only=True)
    else:
        torch._C._set_deterministic_algorithms(wanted, warn_only=True)


def spare_compiler() -> None:
    """Put the stand-ins in the compiler's place, where it is not imported yet."""
    if any(name in sys.modules for name in _NAMES):
        return
    compiler, utils = (_Later(name) for name in _NAMES)
    vars(compiler).update(utils=utils, disable=_disable, graph_break=_graph_break)
    vars(utils).update(is_compile_supported=_is_compile_supported)
    sys.modules.update({"torch._dynamo": compiler, "torch._dynamo.utils": utils})


class _Later(ModuleType):
    """A module that is imported when anything is asked of it that its stand-in has not."""

    def __getattr__(self, name: str) -> Any:
        # Other names of this kind are asked for by whoever looks through all modules.
        part = name == "__path__" and self.__name__ == _NAMES[0]
        if name.startswith("__") and not part:
            raise AttributeError(name)
        return getattr(_imported(self.__name__), name)


def _imported(name: str) -> ModuleType:
    """A part of the compiler itself."""
    for one in _NAMES:
        if isinstance(sys.modules.get(one), _Later):
            del sys.modules[one]
    return importlib.import_module(name)


def _is_compile_supported(device_type: str) -> bool:
    return bool(_imported("torch._dynamo.utils").is_compile_supported(device_type))


def _graph_break(*given: Any, **named: Any) -> None:
    """Nothing: what is not compiled has no graph."""


def _disable(function: Callable[..., Any] | None = None, *given: Any, **named: Any) -> Any:
    """`function` as it is, until the compiler is there; from then on what its `disable` gives."""
    if function is None:
        return functools.partial(_disable, **named)
    made: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*words: Any, **more: Any) -> Any:
        if not made and not isinstance(sys.modules["torch._dynamo"], _Later):
            made.append(torch.compiler.disable(function))  # type: ignore[no-untyped-call]
        return (made[0] if made else function)(*words, **more)

    return call
