"""Colour of a batch of images whose every image has its own parameters.

Values are whole numbers from 0 to 255 after each step, as those of uint8 images are.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from convit_ssl.data.augment.parameters import BRIGHTNESS, CONTRAST, HUE, SATURATION

_LUMA = (0.299, 0.587, 0.114)


def grey(
    images: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 1 height width"]:
    """Luma by ITU-R 601."""
    weights = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def jitter(
    images: Float[Tensor, "batch 3 height width"], drawn: Float[Tensor, "batch 8"]
) -> Float[Tensor, "batch 3 height width"]:
    """Brightness, contrast, saturation and hue in each image's own order.

    Args:
        images: 0..255.
        drawn: on the CPU: four pairs of operation (-1: none) and factor.
    """
    for pair in drawn.reshape(len(drawn), -1, 2).unbind(1):
        operation, factor = pair.unbind(1)
        images = _affine(images, operation, factor)
        turned = (operation == HUE).nonzero()[:, 0]
        if len(turned):
            shift = factor[turned].to(images.device, non_blocking=True)
            chosen = turned.to(images.device, non_blocking=True)
            images[chosen] = turn_hue(images[chosen], shift)
    return images


def _affine(images: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """Brightness, contrast or saturation of those images whose turn it is, as one product.

    All three mix the image with something: black, its mean grey, its own grey.
    """
    device = images.device
    mixing = (operation >= BRIGHTNESS) & (operation <= SATURATION)
    if not bool(mixing.any()):
        return images
    keep = torch.where(mixing, factor, torch.ones_like(factor))
    own_grey = torch.where(operation == SATURATION, 1.0 - factor, torch.zeros_like(factor))
    mean_grey = torch.where(operation == CONTRAST, 1.0 - factor, torch.zeros_like(factor))
    luma = torch.tensor(_LUMA).expand(3, 3)
    matrix = keep[:, None, None] * torch.eye(3) + own_grey[:, None, None] * luma
    matrix, mean_grey = matrix.to(device), mean_grey.to(device)
    middle = grey(images).mean((1, 2, 3)).round() * mean_grey
    mixed = torch.baddbmm(middle.view(-1, 1, 1), matrix, images.flatten(2))
    # Cut off, as Pillow does; the small term is for what float32 leaves below a whole number.
    return mixed.clamp_(0.0, 255.0).add_(1e-3).floor_().view_as(images)


def turn_hue(
    images: Float[Tensor, "batch 3 height width"], shift: Float[Tensor, " batch"]
) -> Float[Tensor, "batch 3 height width"]:
    """Turn the hue by ``shift`` of a full turn, in HSV."""
    high, low = images.amax(1), images.amin(1)
    red, green, blue = images.unbind(1)
    chroma = (high - low).clamp_min(1e-6)
    hue = torch.where(
        high == red,
        (green - blue) / chroma,
        torch.where(high == green, 2.0 + (blue - red) / chroma, 4.0 + (red - green) / chroma),
    )
    # Foley and van Dam's closed form of HSV to RGB: one trapezoid per channel.
    turned = hue + 6.0 * shift.view(-1, 1, 1)
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    phase = (offsets + turned[:, None]).remainder(6.0)
    trapezoid = torch.minimum(phase, 4.0 - phase).clamp_(0.0, 1.0)
    return (high[:, None] - (high - low)[:, None] * trapezoid).round_()
