"""What label-free scores read: features of images as they are, and of random views of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data import ImageFiles
from convit_ssl.data.augment.spec import AugmentConfig, CropConfig, build_augmentation

VIEWS = 4  # of an image
# Milder than those of pretraining and the same for all networks, so that no method is favoured.
SCALE = (0.25, 1.0)
JITTER = (0.4, 0.4, 0.2, 0.1)
BATCH = 32  # images, each of VIEWS views
LARGEST_PIXELS = 32  # side of a view as raw pixels


class RandomViews:
    """Random crops, flips and colours of an image: `VIEWS` normalised tensors.

    Args:
        size: height and width in pixels.
        mean: of the channels, for values of 0 to 1.
        std: of the channels.
        grey: the images have no colour.
        native: the images are float arrays of as many channels as `mean` has.
    """

    seeded = True

    def __init__(
        self,
        size: int | tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        grey: bool = False,
        native: bool = False,
    ) -> None:
        crop = CropConfig(size, count=VIEWS, scale=SCALE, jitter=JITTER, jitter_prob=0.8)
        config = AugmentConfig((crop,), tuple(mean), tuple(std), grey_images=grey)
        if native:
            config = config.for_channels(mean, std)
        self._augment: Any = build_augmentation(config, "pil")

    def __call__(self, image: Any, seed: int) -> Float[Tensor, "views chans height width"]:
        """The views of one image."""
        return torch.stack(self._augment(image, seed=seed))


def view_features(
    networks: Sequence[Callable[[Tensor], Tensor]],
    images: ImageFiles,
    rows: Sequence[int],
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[Float[Tensor, "images views dim"]]:
    """Features of the same views of some images, by each of several networks.

    Images that cannot be read are left out.

    Args:
        networks: images to (B, D).
        images: with `RandomViews` as their transform.
        rows: which images.
        device: where features are computed.
        progress: called with (images done, images in all).
    """
    found: list[list[Tensor]] = [[] for _ in networks]
    for first in range(0, len(rows), BATCH):
        read = [images[row] for row in rows[first : first + BATCH]]
        views = [made for made, _, index in read if index >= 0]
        if views:
            together = torch.stack(views)
            flat = together.flatten(0, 1).to(device)
            for network, kept in zip(networks, found, strict=True):
                with torch.inference_mode():
                    made = network(flat).float().cpu()
                kept.append(made.unflatten(0, together.shape[:2]))
        if progress is not None:
            progress(min(first + BATCH, len(rows)), len(rows))
    return [torch.cat(kept) if kept else torch.empty(0, VIEWS, 1) for kept in found]


class ViewPixels(nn.Module):
    """Views as raw pixels, no larger than `LARGEST_PIXELS` a side."""

    def forward(
        self, images: Float[Tensor, "batch chans height width"]
    ) -> Float[Tensor, "batch dim"]:
        """One row of pixels per view."""
        height, width = (min(LARGEST_PIXELS, side) for side in images.shape[-2:])
        if (height, width) != tuple(images.shape[-2:]):
            images = F.interpolate(images, (height, width), mode="area")
        return images.flatten(1)
