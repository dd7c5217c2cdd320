"""Linear probes of a frozen trunk: every learning rate and choice of features in one run."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.methods.base import (
    Crops,
    LabelledOptions,
    Method,
    Run,
    register_method,
)
from convit_ssl.methods.gather import full_precision
from convit_ssl.methods.scale_tables import PublishedRun
from convit_ssl.options import option

__all__ = ["Linear", "LinearOptions", "Probes"]


@dataclass
class LinearOptions(LabelledOptions):
    """Linear probes of a frozen trunk, one head per learning rate and choice of features."""

    learning_rates: list[float] = option(
        [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1],
        "Learning rates to try, one head each; scaled by batch size / 256.",
        unit="per 256 images", above=0, form="a list of numbers",
    )  # fmt: skip
    holdout: float = option(
        0.1,
        "Fraction of train that is held out to choose the best head.",
        unit="fraction of the images", above=0, most=1,
    )  # fmt: skip


class Probes(nn.Module):
    """Linear classifiers of one feature, one per learning rate, as one matrix.

    Args:
        in_dim: width of the feature.
        num_classes: classes.
        learning_rates: one classifier each; used by the optimiser's groups.

    Returns logits (B, len(learning_rates), num_classes).
    """

    def __init__(self, in_dim: int, num_classes: int, learning_rates: Sequence[float]) -> None:
        super().__init__()
        self.learning_rates = list(learning_rates)
        self.norm = nn.BatchNorm1d(in_dim, affine=False)
        self.classifiers = nn.ModuleList(
            nn.Linear(in_dim, num_classes) for _ in self.learning_rates
        )
        for classifier in self.classifiers:
            assert isinstance(classifier, nn.Linear)
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.zeros_(classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every classifier, (B, classifiers, classes)."""
        normed = self.norm(x)
        return torch.stack([classifier(normed) for classifier in self.classifiers], dim=1)


@register_method
class Linear(Method[LinearOptions]):
    """The sum of the probes' cross-entropies: each learns as if it were alone."""

    name = "linear"
    Options = LinearOptions
    labelled = True
    frozen_trunk = True
    global_crops = 1
    published = PublishedRun(300, 1024, 40, "as published")

    @classmethod
    def views(cls, options: LinearOptions, crops: Crops) -> AugmentConfig:
        """One crop and flip."""
        return AugmentConfig.crop_and_flip(crops.global_size, crops.global_scale)

    @classmethod
    def head(cls, options: LinearOptions, width: int, run: Run) -> nn.Module:
        """Classifiers of one feature."""
        return Probes(width, run.num_classes, options.learning_rates)

    def forward(self, output: Tensor | list[Tensor], target: Tensor) -> Tensor:
        """Sum over the features' probes (B, probes, classes) of their mean cross-entropy."""
        outputs = output if isinstance(output, list) else [output]  # of one feature
        losses = [
            F.cross_entropy(
                full_precision(logits).flatten(0, 1), target.repeat_interleave(logits.shape[1])
            )
            * logits.shape[1]
            for logits in outputs
        ]
        return torch.stack(losses).sum()
