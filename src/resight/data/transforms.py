"""From an RGB picture to the tensor that a network takes: test and train transforms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

if TYPE_CHECKING:  # what only decodes and resizes (serve/decoder.py) does without
    import torch

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
Fraction = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=8, le=4096)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the smaller number comes first")
    return pair


Share = Annotated[tuple[Fraction, Fraction], AfterValidator(_ascending)]
Ratio = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]


class Preprocess(BaseModel):
    """The test transform, saved with an embedder.

    `resize`: "stretch" to `size` whatever the shape (ReID, products); "crop": the short side to
    size · `crop_margin`, then the centre (Smooth-AP: 256 / 224); "fit": the long side to the
    larger of `size`, shape kept (landmarks; one image a batch).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[Side, Side] = (256, 128)
    resize: Literal["stretch", "crop", "fit"] = "stretch"
    crop_margin: Annotated[float, Field(ge=1, le=2)] = 256 / 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)

    @property
    def decode_target(self) -> tuple[int, int]:
        """The (height, width) that a reduced JPEG decode must still reach."""
        if self.resize == "crop":
            side = math.ceil(max(self.size) * self.crop_margin)
            return (side, side)
        return self.size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """float32 (3, H, W), normalised."""
        return self.normalise(to_tensor(self.resized(image)))

    def resized(self, image: Image.Image) -> Image.Image:
        """The picture at its final size."""
        height, width = self.size
        method = _FILTERS[self.interpolation]
        if self.resize == "stretch":
            return image.resize((width, height), method)
        if self.resize == "fit":
            scale = max(self.size) / max(image.size)
            fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            return image.resize(fitted, method)
        scale = max(
            height * self.crop_margin / image.height, width * self.crop_margin / image.width
        )
        near = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        left, top = (near[0] - width) // 2, (near[1] - height) // 2
        return image.resize(near, method).crop((left, top, left + width, top + height))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (3, H, W) to float32, scaled to 0..1, minus mean, over standard deviation."""
        import torch

        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        # To the last digit as torchvision does it, whose import takes long.
        scaled = pixels.to(torch.float32).mul_(1.0 / 255)
        return scaled.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


class Augment(BaseModel):
    """The train transform.

    "pad-crop" (CTL): stretch to size, flip, pad, random crop, normalise, erase. "resized-crop"
    (Smooth-AP): RandomResizedCrop, flip, normalise, erase. Erasing comes after normalisation and
    fills with 0, the mean colour (Zhong et al., AAAI 2020).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: Literal["pad-crop", "resized-crop"] = "pad-crop"
    flip: Fraction = 0.5
    pad: Annotated[int, Field(ge=0, le=512)] = 10
    scale: Share = (0.2, 1.0)
    erase: Fraction = 0.5
    erase_area: Share = (0.02, 0.4)
    erase_ratio: Ratio = (0.3, 3.3)
    jitter: Fraction = 0.0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0

    def __call__(self, image: Image.Image, preprocess: Preprocess, seed: int) -> torch.Tensor:
        """float32 (3, H, W), a pure function of the picture, the settings and `seed`.

        A seed for every image drawn makes a run independent of the number of workers, and a
        resumed run equal to an uninterrupted one.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed every GPU, and keep a list of calls for later.
            torch.default_generator.manual_seed(seed)
            return self._apply(image, preprocess)

    def _apply(self, image: Image.Image, preprocess: Preprocess) -> torch.Tensor:
        from resight import lightly

        v2 = lightly.transforms()
        size = list(preprocess.size)
        mode = v2.InterpolationMode(preprocess.interpolation)
        if self.rotate:
            image = v2.RandomRotation(self.rotate, mode, fill=255)(image)
        if self.crop == "resized-crop":
            image = v2.RandomResizedCrop(size, scale=self.scale, interpolation=mode)(image)
        else:
            image = image.resize((size[1], size[0]), _FILTERS[preprocess.interpolation])
        if self.jitter:
            image = v2.ColorJitter(self.jitter, self.jitter, self.jitter, self.jitter / 4)(image)
        pixels = to_tensor(image)
        if self.flip:
            pixels = v2.RandomHorizontalFlip(self.flip)(pixels)
        if self.crop == "pad-crop" and self.pad:
            pixels = v2.RandomCrop(size, padding=self.pad)(pixels)
        tensor = preprocess.normalise(pixels)
        if self.erase:
            tensor = v2.RandomErasing(self.erase, self.erase_area, self.erase_ratio)(tensor)
        return tensor


def to_tensor(image: Image.Image) -> torch.Tensor:
    """uint8 (3, H, W)."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
