"""Where networks run: on the device that was asked for, else on a GPU if there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from resight.errors import UserError

if TYPE_CHECKING:
    import torch

# What drivers of GPUs leave there: without any of it torch need not be asked, whose import is long.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/proc/driver/nvidia/version")
_default: list[str | None] = [None]


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, here or by `default_device`; else a GPU, if there is one."""
    import torch

    device = device if device is not None else _default[0]
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def on_cpu(device: str | torch.device | None = None) -> bool:
    """Whether `pick_device` would answer a CPU; torch is imported only where that is in doubt."""
    device = device if device is not None else _default[0]
    if device is not None:
        return str(device).partition(":")[0] == "cpu"
    if "torch" not in sys.modules and sys.platform.startswith("linux"):
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        if hidden or not any(Path(driver).exists() for driver in _DRIVERS):
            return True
    return pick_device().type == "cpu"


def default_device(device: str | None) -> None:
    """From now on `pick_device` answers this, and training is done there; None: as before.

    Raises UserError when there is no such device.
    """
    if device not in (None, "cpu"):  # a CPU is there without asking
        import torch

        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            first = (str(error).strip().splitlines() or [""])[0].split(". ")[0][:120]
            raise UserError(f"--device {device}: can't be used ({first}); cpu always can") from None
    _default[0] = device
    # accelerate, with which we train, is told in its own way.
    told = {"ACCELERATE_TORCH_DEVICE": device}
    told["ACCELERATE_USE_CPU"] = "true" if device == "cpu" else None
    for name, value in told.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
