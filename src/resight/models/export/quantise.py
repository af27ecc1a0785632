"""A graph with weights and activations in 8 bits, their ranges seen on images."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from resight.errors import UserError

PICTURES = 100  # to see the ranges on: more take long, and change little


class _Reader:
    """What ONNX Runtime's calibration asks for the next input."""

    def __init__(self, name: str, inputs: Sequence[NDArray[Any]]):
        self._name, self._left = name, iter(inputs)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next input by name; None at the end."""
        found = next(self._left, None)
        return None if found is None else {self._name: found}


def quantised(graph: bytes, name: str, inputs: Sequence[NDArray[Any]]) -> bytes:
    """The same graph in 8 bits: weights int8 by channel, activations uint8, static ranges.

    `inputs`: batches as the input `name` takes them, of images as they will come.

    Raises UserError when ONNX Runtime can't do it.
    """
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as place, _quiet():
        before, ready, after = (str(Path(place) / n) for n in ("a.onnx", "b.onnx", "c.onnx"))
        Path(before).write_bytes(graph)
        try:
            quant_pre_process(before, ready, skip_symbolic_shape=True)
            quantize_static(
                ready,
                after,
                _Reader(name, inputs),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:  # of many kinds, by what it finds in a graph
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
            raise UserError(f"--dtype int8: this network can't be quantised: {reason}") from None
        return Path(after).read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the quantiser prints and logs."""
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
