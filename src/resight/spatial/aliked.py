"""ALIKED-n16, a learned detector and descriptor, from its authors' weights by way of kornia.

On a GPU where there is one. On one core a picture of 480 px takes a second, ten times SIFT.

Source: Zhao et al., "ALIKED: A Lighter Keypoint and Descriptor Extraction Network via Deformable
Transformation", IEEE Transactions on Instrumentation and Measurement, 2023.
"""

from __future__ import annotations

import pickle
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resight.errors import UserError

# A unit vector of 128 numbers has values of about 0.09, and hardly one beyond 0.5.
_SCALE = 254
_LEAST = 0.02  # score; on a blank picture the border reaches 0.006, and matches other blank ones


def aliked(
    picture: NDArray[np.uint8], weights: str, most: int
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The strongest `most` keypoints (n, 2) of an RGB picture (H, W, 3), descriptors (n, 128) int8.

    On one CPU thread, so that the digits don't depend on how many processes share the work.
    Raises UserError when the library or the weights are missing or don't fit.
    """
    network = _network(weights, most)
    device = next(network.parameters()).device
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            pixels = torch.from_numpy(picture.copy()).to(device)
            found = network(pixels.permute(2, 0, 1)[None].float() / 255)[0].to("cpu")
    finally:
        torch.set_num_threads(threads)
    scores = found.keypoint_scores
    order = torch.argsort(scores, descending=True, stable=True)[:most]
    order = order[scores[order] > _LEAST]
    eight = np.rint(_SCALE * found.descriptors[order].numpy()).clip(-127, 127).astype(np.int8)
    return found.keypoints[order].numpy().astype(np.float32), eight


def on_gpu() -> bool:
    """Whether the network runs on a GPU: then one process does all the work."""
    return torch.cuda.is_available()


@lru_cache(maxsize=1)
def _network(weights: str, most: int) -> Any:
    """The network with these weights, ready to use."""
    try:
        from kornia.feature.aliked import ALIKED
    except ImportError:
        raise UserError(
            "detector aliked needs kornia; install it with: pip install 'resight[learned]'"
        ) from None
    network = ALIKED("aliked-n16", max_num_keypoints=most, detection_threshold=0.0)
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        left = network.load_state_dict(state, strict=False)
    except FileNotFoundError:
        raise UserError(f"{weights}: no such file; aliked-n16.pth was expected here") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise _unfit(weights, str(error)) from None
    # The detector's grid is a constant of kornia's that the authors' file does not hold.
    wrong = [key for key in left.missing_keys if not key.startswith("dkd.")] + left.unexpected_keys
    if wrong:
        raise _unfit(weights, f"{len(wrong)} names differ, {wrong[0]} the first")
    return network.eval().to("cuda" if on_gpu() else "cpu")


def _unfit(weights: str, reason: str) -> UserError:
    short = " ".join(reason.split())[:120]
    return UserError(f"{weights}: not the weights of ALIKED-n16 ({short})")
