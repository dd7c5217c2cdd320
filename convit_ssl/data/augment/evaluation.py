"""The transform of evaluation: resize, centre crop, normalise, in Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from convit_ssl.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# From this crop size on the published ratio 224 / 256 is the default; smaller crops take
# the whole image, as is usual for CIFAR and digits, where the border belongs to the object.
_CENTRE_CROP_FROM = 128
# A resized image of so many times the crop's area is not made whole.
_MUCH_WIDER = 4


def pillow_interpolation(name: str) -> Image.Resampling:
    """Pillow's filter by name. Raises UserError, with the names, for another one."""
    try:
        return _INTERPOLATIONS[name]
    except KeyError:
        raise UserError(
            f"interpolation {name!r} is unknown; choose from {', '.join(_INTERPOLATIONS)}"
        ) from None


class EvaluationTransform:
    """Resize the image to cover ``img_size / crop_ratio``, cut the centre, normalise.

    Equal to torchvision's Resize, CenterCrop, ToTensor, Normalize on Pillow images. Crops below
    128 pixels take the whole image instead, whatever its shape (``crop_mode="squash"`` in timm):
    of a small image every side may be what tells the classes apart.

    Args:
        img_size: side in pixels, or (height, width).
        interpolation: nearest, bilinear, bicubic or lanczos.
        mean, std: per channel, of values in 0..1.
        crop_ratio: share of the shorter side that is kept; None: 0.875 for crops of 128
            pixels and more, the whole image for smaller ones.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        interpolation: str = "bicubic",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        crop_ratio: float | None = None,
    ) -> None:
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if min(height, width) < 1:
            raise UserError(f"img_size is {img_size}; it must be at least 1 pixel")
        self.whole = crop_ratio is None and min(height, width) < _CENTRE_CROP_FROM
        if crop_ratio is None:
            crop_ratio = 1.0 if self.whole else 0.875
        if not 0.0 < crop_ratio <= 1.0:
            raise UserError(f"crop_ratio is {crop_ratio}; it must be above 0 and at most 1")
        self.size = (int(height), int(width))
        self.crop_ratio = float(crop_ratio)
        self.interpolation = interpolation
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self._filter = pillow_interpolation(interpolation)
        # As torchvision's normalize: fp32 statistics, subtraction, then division.
        self._mean = torch.tensor(self.mean).view(-1, 1, 1)
        self._std = torch.tensor(self.std).view(-1, 1, 1)

    def __call__(
        self, image: Image.Image | npt.NDArray[np.float32]
    ) -> Float[Tensor, "chans height width"]:
        """Pillow RGB, or a float array (H, W, C), to a normalised tensor."""
        if isinstance(image, np.ndarray) or len(self.mean) != 3:
            return self._of_channels(image)
        image = self._centre(image)
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        values = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div_(255.0)
        return values.sub_(self._mean).div_(self._std)

    def _of_channels(self, image: Any) -> Float[Tensor, "chans height width"]:
        """The same view of an image of any number of channels, cut before it is resized."""
        from convit_ssl.data.augment.channels import as_channels, normalised, resize_channels

        array = as_channels(image, len(self.mean))
        if not self.whole:
            rows, columns = array.shape[:2]
            height, width = self.size
            factor = self.crop_ratio * min(rows / height, columns / width)
            high, wide = max(1, round(height * factor)), max(1, round(width * factor))
            top, left = (rows - high) // 2, (columns - wide) // 2
            array = array[top : top + high, left : left + wide]
        array = resize_channels(array, self.size, self.interpolation)
        return normalised(array, np.array(self.mean, np.float32), np.array(self.std, np.float32))

    def _centre(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if self.whole:
            if image.size == (width, height):
                return image
            return image.resize((width, height), self._filter)
        if height == width:
            # torchvision's Resize(int): the shorter side exactly, the longer truncated.
            side = int(height / self.crop_ratio)
            short, long = min(image.size), max(image.size)
            other = int(side * long / short)
            wide = (other, side) if image.width > image.height else (side, other)
        else:
            scale = max(height / image.height, width / image.width) / self.crop_ratio
            wide = (
                max(width, round(image.width * scale)),
                max(height, round(image.height * scale)),
            )
        left = round((wide[0] - width) / 2.0)
        top = round((wide[1] - height) / 2.0)
        if wide[0] * wide[1] > _MUCH_WIDER * width * height:
            # Only what is kept: a strip of 1 x 2,000 pixels would become one of 224 x 448,000.
            across, down = image.width / wide[0], image.height / wide[1]
            box = (left * across, top * down, (left + width) * across, (top + height) * down)
            return image.resize((width, height), self._filter, box=box)
        if wide != image.size:
            image = image.resize(wide, self._filter)
        return image.crop((left, top, left + width, top + height))

    def describe(self) -> dict[str, object]:
        """What the transform does, for fingerprints and result files."""
        return {
            "size": list(self.size),
            "crop_ratio": self.crop_ratio,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            **({"crop_mode": "squash"} if self.whole else {}),
        }

    def __repr__(self) -> str:
        text = ", ".join(f"{key}={value}" for key, value in self.describe().items())
        return f"EvaluationTransform({text})"


def evaluation_transform(
    img_size: int | tuple[int, int],
    interpolation: str = "bicubic",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    crop_ratio: float | None = None,
) -> EvaluationTransform:
    """See :class:`EvaluationTransform`."""
    return EvaluationTransform(img_size, interpolation, mean, std, crop_ratio)
