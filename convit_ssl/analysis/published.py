"""Published figures to put beside our own: ConViT, arXiv:2103.10697. ImageNet top-1 in %."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedModel:
    """A row of Table 1.

    Attributes:
        parameters: millions.
        images_per_s: on one Quadro GP100, batch 128.
        accuracy: top-1 in %.
        baseline_accuracy: of the DeiT of the same size.
        baseline_images_per_s: of the DeiT of the same size.
    """

    parameters: float
    accuracy: float
    images_per_s: float
    baseline_accuracy: float
    baseline_images_per_s: float


# Table 1.
MODELS = {
    "convit_tiny": PublishedModel(6.0, 73.1, 734.0, 72.2, 1442.0),
    "convit_tiny_plus": PublishedModel(10.0, 76.7, 625.0, 75.9, 1036.0),
    "convit_small": PublishedModel(27.0, 81.3, 305.0, 79.8, 587.0),
    "convit_small_plus": PublishedModel(48.0, 82.2, 382.0, 79.0, 480.0),
    "convit_base": PublishedModel(86.0, 82.4, 141.0, 81.8, 187.0),
    "convit_base_plus": PublishedModel(152.0, 82.5, 96.0, 77.5, 114.0),
}

# Table 2: share of ImageNet -> (ConViT-S, DeiT-S), epochs scaled by 1 / share.
SAMPLE_EFFICIENCY = {
    0.05: (47.8, 34.8),
    0.1: (59.6, 48.0),
    0.3: (73.7, 66.1),
    0.5: (78.2, 74.6),
    1.0: (81.4, 79.9),
}

# Table 3, ConViT-S+: name -> (full ImageNet, 10 % of it).
ABLATIONS = {
    "gated, conv init": (82.2, 59.7),
    "no gating": (82.0, 57.4),
    "no conv init": (81.4, 56.9),
    "no gating, no conv init": (81.6, 54.6),
    "position frozen, conv init": (78.6, 54.3),
    "position frozen, no conv init": (73.7, 44.8),
    "DeiT": (79.1, 47.8),
}
SOURCE = "ConViT, arXiv:2103.10697"
