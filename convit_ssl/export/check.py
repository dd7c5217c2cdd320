"""Proof that what was written computes what we compute: random images through both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.models.trunks import Network

# fp32 outputs are of order one to ten after the last LayerNorm.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Difference:
    """The largest difference of two outputs on random images of one size.

    Attributes:
        size: (height, width) in pixels.
        value: max |ours - theirs|.
        scale: max |ours|, or 1 where that is smaller.
    """

    size: tuple[int, int]
    value: float
    scale: float

    @property
    def within_tolerance(self) -> bool:
        """Whether it is explained by the rounding of float32."""
        return self.value <= TOLERANCE * self.scale

    def __str__(self) -> str:
        return f"{self.value:.1e} at {self.size[0]} x {self.size[1]} px"


def random_images(model: Network, size: tuple[int, int], count: int = 3, seed: int = 0) -> Tensor:
    """Normalised noise, the same on each call: (count, channels, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, model.config.in_chans, *size, generator=generator)


def own_size(model: Network) -> tuple[int, int]:
    """(height, width) that the model was made for."""
    return model.config.image_shape


def second_size(model: Network) -> tuple[int, int]:
    """Two patches more on each side."""
    height, width = own_size(model)
    more = 2 * model.config.patch_size
    return height + more, width + more


def compare(
    model: Network,
    theirs: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    ours: Callable[[Tensor], Tensor] | None = None,
) -> Difference:
    """Run both on the same images.

    Args:
        model: our side, called as it is unless `ours` is given.
        theirs: the target.
        size: of the images, (height, width).
        ours: what to compare of the model.

    Raises:
        UserError: outputs of another shape, or not finite.
    """
    images = random_images(model, size)
    with torch.inference_mode():
        expected, actual = (ours or model)(images), theirs(images)
    if expected.shape != actual.shape:
        raise UserError(
            f"ours gives {tuple(expected.shape)} and the target {tuple(actual.shape)} at "
            f"{size[0]} x {size[1]} px"
        )
    if not bool(torch.isfinite(expected).all() and torch.isfinite(actual).all()):
        raise UserError(
            "the outputs are not finite numbers; `convit-ssl audit` shows which weights are not"
        )
    scale = max(1.0, float(expected.abs().max()))
    return Difference(size, float((expected - actual).abs().max()), scale)
