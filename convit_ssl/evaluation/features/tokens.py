"""From images to feature columns: class tokens, mean patch tokens, or the pixels themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.channels import as_channels, resize_channels
from convit_ssl.data.reading.pixels import image_header
from convit_ssl.errors import UserError
from convit_ssl.models.trunks import OtherTrunk

CLASS_TOKEN = re.compile(r"class_last(\d+)")
POOLED = "pooled"
"""The one feature of a network that is not a ConViT."""
PATCH_MEAN = re.compile(r"patch_mean_last(\d+)")


def available_columns(model: nn.Module) -> tuple[str, ...]:
    """The columns a model has: `class_last<n>` and `patch_mean_last<n>`, n counted from the end.

    ConViT's class token exists from block `num_gpsa_layers` on, so the published sizes have
    `class_last1` and `class_last2`.
    """
    if isinstance(model, OtherTrunk):
        return (POOLED,)
    config: Any = getattr(model, "config", None)
    if config is None:
        raise UserError(f"{type(model).__name__} has no config; features need a ConViT")
    class_tokens = range(1, config.depth - config.num_gpsa_layers + 1)
    return tuple(f"class_last{n}" for n in class_tokens) + tuple(
        f"patch_mean_last{n}" for n in range(1, config.depth + 1)
    )


def default_columns(model: nn.Module) -> tuple[str, ...]:
    """Class tokens of the last two blocks and the mean patch token, as far as they exist."""
    wanted = (POOLED, "class_last1", "class_last2", "patch_mean_last1")
    available = available_columns(model)
    return tuple(name for name in wanted if name in available)


class TokenFeatures(nn.Module):
    """Chosen tokens of a ConViT side by side, each after the model's final LayerNorm.

    Args:
        model: a ConViT, or anything with its `forward_intermediates`, `norm` and `config`.
        columns: names out of `available_columns(model)`; `default_columns(model)` by default.

    Raises:
        UserError: a column that this model does not have.
    """

    def __init__(self, model: nn.Module, columns: Sequence[str] | None = None) -> None:
        super().__init__()
        self.model = model
        names = tuple(columns) if columns else default_columns(model)
        available = available_columns(model)
        unknown = [name for name in names if name not in available]
        if unknown:
            raise UserError(
                f"this model has no feature {unknown[0]!r}; it has {', '.join(available)}"
            )
        dim = int(model.config.embed_dim)  # type: ignore[union-attr,arg-type]
        self.layout = {name: (i * dim, (i + 1) * dim) for i, name in enumerate(names)}

    def forward(
        self, images: Float[Tensor, "batch chans height width"]
    ) -> Float[Tensor, "batch dim"]:
        """One row of features per image."""
        model: Any = self.model
        if isinstance(model, OtherTrunk):
            pooled: Tensor = model(images)
            return pooled
        last, inside = model.forward_intermediates(images)
        patches = inside.tokens[0].shape[1] - (model.config.num_gpsa_layers == 0)
        columns = []
        for name in self.layout:
            match = CLASS_TOKEN.fullmatch(name) or PATCH_MEAN.fullmatch(name)
            assert match is not None
            block = int(match.group(1))
            tokens = last if block == 1 else model.norm(inside.tokens[-block])
            if CLASS_TOKEN.fullmatch(name):
                columns.append(tokens[:, 0])
            else:
                columns.append(tokens[:, -patches:].mean(dim=1))
        return torch.cat(columns, dim=1)


class PatchFeatures(nn.Module):
    """All patch tokens of the last block after the final LayerNorm: a map of features.

    A row holds the map of an image flat; ``reshape(-1, *grid, channels)`` gives it back.

    Args:
        model: a ConViT, or anything with its `forward_intermediates` and `config`.
        size: height and width of the images in pixels.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        if isinstance(model, OtherTrunk):
            raise UserError(
                f"{model.config.trunk} returns one feature vector per image; patch features need a "
                "ConViT or a plain ViT"
            )
        self.model = model
        config: Any = model.config
        rows, columns = (side // int(config.patch_size) for side in size)
        self.patches = (rows, columns, int(config.embed_dim))
        self.layout = {"patches": (0, rows * columns * int(config.embed_dim))}

    def forward(
        self, images: Float[Tensor, "batch chans height width"]
    ) -> Float[Tensor, "batch dim"]:
        """One row per image: rows x columns x channels, in this order."""
        model: Any = self.model
        last, _ = model.forward_intermediates(images)
        rows, columns, _ = self.patches
        flat: Tensor = last[:, -rows * columns :].flatten(1)
        return flat


class PixelFeatures(nn.Module):
    """The pixels as features: the reference any trunk has to beat.

    Args:
        transform: says how many numbers an image becomes.
    """

    def __init__(self, transform: PixelTransform) -> None:
        super().__init__()
        channels = transform.channels or (1 if transform.grey else 3)
        self.layout = {"pixels": (0, transform.side**2 * channels)}

    def forward(
        self, images: Float[Tensor, "batch chans height width"]
    ) -> Float[Tensor, "batch dim"]:
        """One row of pixels per image."""
        return images.flatten(1)


class PixelTransform:
    """A PIL image to a small square tensor (C, side, side) in 0..1.

    Args:
        side: pixels; no larger than the images, so that nothing is invented.
        grey: one channel instead of three.
        channels: of float arrays (H, W, C), which are taken in place of PIL images; 0 for RGB.
    """

    def __init__(self, side: int = 32, grey: bool = False, channels: int = 0) -> None:
        self.side = side
        self.grey = grey
        self.channels = channels

    def __call__(self, image: Any) -> Tensor:
        """Resize (bicubic, the whole image) and scale to 0..1."""
        import numpy as np
        from PIL import Image

        if self.channels:
            planes = as_channels(image, self.channels)
            planes = resize_channels(planes, (self.side, self.side), "bicubic")
            tensor: Tensor = torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))
            return tensor
        image = image.convert("L" if self.grey else "RGB")
        if image.size != (self.side, self.side):
            image = image.resize((self.side, self.side), Image.Resampling.BICUBIC)
        array = np.asarray(image, dtype=np.float32) / 255
        array = array[None] if self.grey else array.transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(array))

    def __repr__(self) -> str:
        more = f", channels={self.channels}" if self.channels else ""
        return f"PixelTransform(side={self.side}, grey={self.grey}{more})"


def pixel_transform(
    paths: Sequence[str | Path], largest: int = 32, grey: bool = False
) -> PixelTransform:
    """Pixels at the images' own size up to `largest`: the median of the shorter side of a sample.

    Args:
        paths: of the images.
        largest: side in pixels.
        grey: whether all images are stored without colour, as `ImageFiles.is_grey` says.

    Raises:
        UserError: no readable image among those looked at.
    """
    sides = []
    for path in paths[:: max(1, len(paths) // 32)][:32]:
        try:
            header = image_header(str(path))
        except (OSError, ValueError):
            continue
        sides.append(min(header.height, header.width))
    if not sides:
        raise UserError(f"none of {len(paths)} images could be read for the raw-pixel reference")
    # Not the least: one strip would leave a single pixel of every image.
    return PixelTransform(min(largest, sorted(sides)[len(sides) // 2]), grey)


def pixels_of(images: Any) -> PixelTransform:
    """`pixel_transform` of a data set, of as many channels as it is read in.

    Args:
        images: an `ImageFiles`.
    """
    if images.reading.native:
        side = min(32, *images.native_size())
        return PixelTransform(side, channels=len(images.reading.channels or (0,)))
    return pixel_transform(images.paths, grey=images.is_grey())
