"""A classifier trained with labels for a budget of processor time, in plain PyTorch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from convit_ssl.data import ImageFiles
from convit_ssl.data.augment.collate import fast_collate
from convit_ssl.data.augment.evaluation import IMAGENET_MEAN, IMAGENET_STD
from convit_ssl.data.augment.fast import Normalize
from convit_ssl.evaluation.finetune import parameter_groups
from convit_ssl.models import ConViT
from convit_ssl.models.products import onednn_products

WARMUP = 0.05  # of the budget
WEIGHT_DECAY = 0.05
CLIP = 1.0


@dataclass(frozen=True)
class LabelSettings:
    """How a network learns labels; fixed beforehand, so that nothing is chosen on a test.

    Attributes:
        rate: AdamW's largest learning rate.
        layer_decay: each layer of a ConViT learns this many times as fast as the one above.
        batch_size: images in a step; fewer where there are fewer images.
    """

    rate: float = 1e-3
    layer_decay: float = 1.0
    batch_size: int = 64


FROM_SCRATCH = LabelSettings()
FINE_TUNING = LabelSettings(rate=2e-3, layer_decay=0.65)


@dataclass(frozen=True)
class Spent:
    """What a training run used: processor seconds of all threads, steps, epochs."""

    core_seconds: float
    steps: int
    epochs: float


def train_with_labels(
    model: nn.Module,
    images: ImageFiles,
    core_seconds: float,
    settings: LabelSettings = FROM_SCRATCH,
    seed: int = 0,
    clock: Callable[[], float] = time.process_time,
) -> Spent:
    """Train in place with cross-entropy until the processor time is used up.

    AdamW, a linear warm-up over the first 5 % of the budget, then a cosine to zero. The rate
    follows the time that is spent, so a run ends at a rate of zero however fast the machine is.

    Args:
        model: gives logits (B, classes) of normalised images.
        images: with augmentation that makes one uint8 crop.
        core_seconds: processor time of this process, loading and augmentation included.
        settings: rates and batch.
        seed: of the order of the images.
        clock: seconds spent so far.
    """
    batch = min(settings.batch_size, len(images))
    groups = _groups(model, settings)
    optimiser = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=WEIGHT_DECAY)
    normalise = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    generator = torch.Generator().manual_seed(seed)
    started, steps, epoch = clock(), 0, 0
    per_epoch = len(images) // batch
    model.train()
    while (spent := clock() - started) < core_seconds:
        images.set_epoch(epoch)
        loader = DataLoader(
            images, batch, shuffle=True, drop_last=True, collate_fn=fast_collate,
            generator=generator,
        )  # fmt: skip
        for views, targets, _ in loader:
            spent = clock() - started
            if spent >= core_seconds:
                break
            for group in optimiser.param_groups:
                group["lr"] = (
                    settings.rate * group.get("lr_scale", 1.0) * _factor(spent / core_seconds)
                )
            with onednn_products(isinstance(model, ConViT)):
                _step(model, optimiser, normalise(views), targets)
            steps += 1
        epoch += 1
    model.eval()
    return Spent(clock() - started, steps, steps / per_epoch)


def _groups(model: nn.Module, settings: LabelSettings) -> list[dict[str, Any]]:
    if isinstance(model, ConViT):
        depth = model.config.depth
        return parameter_groups(model, depth, settings.rate, WEIGHT_DECAY, settings.layer_decay)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def _factor(share: float) -> float:
    """The rate's share of its largest value, after a share of the budget."""
    if share < WARMUP:
        return (share + 1e-3) / (WARMUP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP)))


def _step(
    model: nn.Module, optimiser: torch.optim.Optimizer, views: Tensor, targets: Tensor
) -> None:
    known = targets >= 0
    loss = F.cross_entropy(model(views)[known], targets[known])
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimiser.step()


@torch.inference_mode()
def classify(
    model: nn.Module, images: ImageFiles, batch_size: int = 64
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Logits (N, classes) and targets (N,) of the labelled images that can be read, in order."""
    model.eval()
    logits: list[Tensor] = []
    truth: list[Tensor] = []
    for views, targets, _ in DataLoader(images, batch_size):
        known = targets >= 0
        if known.any():
            logits.append(model(views[known]))
            truth.append(targets[known])
    return torch.cat(logits).numpy(), torch.cat(truth).numpy()


def resnet18(num_classes: int, seed: int) -> nn.Module:
    """Torchvision's ResNet-18 at random init."""
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = models.resnet18(weights=None, num_classes=num_classes)
    return model


class ResNetFeatures(nn.Module):
    """The pooled features of torchvision's ResNet, as one column."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        classifier = model.get_submodule("fc")
        assert isinstance(classifier, nn.Linear)
        self.width = classifier.in_features
        self.body = nn.Sequential(*list(model.children())[:-1])
        self.layout = {"features": (0, self.width)}

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, width)."""
        features: Tensor = self.body(images)
        return features.flatten(1)
