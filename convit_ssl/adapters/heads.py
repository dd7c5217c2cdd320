"""The heads of `convit_ssl.methods`, registered with VISSL by name.

VISSL hands every head the model configuration; the input width is read from the trunk in it,
so that a configuration does not repeat it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from vissl.models.heads import register_model_head

from convit_ssl.adapters.trunk import trunk_config
from convit_ssl.methods import BarlowTwinsHead, DINOHead, MoCoV3Head, SimCLRHead, SwAVHead

RESNET_WIDTH = 2048


def trunk_width(model_config: Any) -> int:
    """Channels of the trunk's feature: embed_dim of ours, 2048 of VISSL's ResNet-50 and deeper.

    Raises:
        ValueError: a trunk of another kind.
    """
    trunk = model_config.TRUNK
    if trunk.NAME == "convit_ssl":
        return int(trunk_config(trunk.CONVIT_SSL).embed_dim)
    if trunk.NAME == "resnet":
        return RESNET_WIDTH * trunk.RESNETS.WIDTH_MULTIPLIER
    raise ValueError(
        f"trunk {trunk.NAME!r} is not convit_ssl; follow it by VISSL's own heads, which take "
        "their input width as an option"
    )


@register_model_head("convit_ssl_dino_head")
class VisslDINOHead(DINOHead):
    """`DINOHead` behind the trunk's class token.

    Attributes:
        keep_features: hold what was put in, for a loss that looks at it too.
        features: (rows, dim) of the last forward pass, until the loss takes them.
    """

    def __init__(self, model_config: Any, **options: Any) -> None:
        super().__init__(trunk_width(model_config), **options)
        self.keep_features = False
        self.features: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits over the prototypes."""
        self.features = x if self.keep_features else None
        return super().forward(x)

    def take_features(self) -> Tensor:
        """The features, once: they hold the graph of a whole forward pass."""
        features, self.features = self.features, None
        assert features is not None
        return features


@register_model_head("convit_ssl_projection_head")
class VisslSimCLRHead(SimCLRHead):
    """`SimCLRHead` behind the trunk's class token."""

    def __init__(self, model_config: Any, **options: Any) -> None:
        super().__init__(trunk_width(model_config), **options)


@register_model_head("convit_ssl_moco_v3_head")
class VisslMoCoV3Head(MoCoV3Head):
    """`MoCoV3Head` behind the trunk's class token.

    Args:
        model_config: VISSL's model section.
        views: of an image; VISSL hands over their features in one tensor, view-major.
        options: of `MoCoV3Head`.
    """

    def __init__(self, model_config: Any, views: int = 2, **options: Any) -> None:
        super().__init__(trunk_width(model_config), **options)
        self.views = views

    def project(self, x: Tensor, views: int | None = None) -> Tensor:
        """Projections of all views, each normalised by itself."""
        return super().project(x, views or self.views)

    def forward(self, x: Tensor, views: int | None = None) -> Tensor:
        """Predictions of all views, each normalised by itself."""
        return super().forward(x, views or self.views)


@register_model_head("convit_ssl_swav_head")
class VisslSwAVHead(SwAVHead):
    """`SwAVHead` behind the trunk's class token.

    Attributes:
        keep_embeddings: hold what is scored, for a loss with a queue.
        embeddings: (rows, out_dim) of the last forward pass, detached.
    """

    def __init__(self, model_config: Any, **options: Any) -> None:
        super().__init__(trunk_width(model_config), **options)
        self.keep_embeddings = False
        self.embeddings: Tensor | None = None

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings on the unit sphere."""
        unit = super().embed(x)
        self.embeddings = unit.detach() if self.keep_embeddings else None
        return unit


@register_model_head("convit_ssl_barlow_twins_head")
class VisslBarlowTwinsHead(BarlowTwinsHead):
    """`BarlowTwinsHead` behind the trunk's class token.

    Args:
        model_config: VISSL's model section.
        views: of an image; VISSL hands over their features in one tensor, view-major.
        options: of `BarlowTwinsHead`.
    """

    def __init__(self, model_config: Any, views: int = 2, **options: Any) -> None:
        super().__init__(trunk_width(model_config), **options)
        self.views = views

    def forward(self, x: Tensor, views: int | None = None) -> Tensor:
        """Embeddings of all views, each normalised by itself."""
        return super().forward(x, views or self.views)


@register_model_head("convit_ssl_classifier")
class Classifier(nn.Linear):
    """The linear classifier of supervised training, initialised as ConViT's own."""

    def __init__(self, model_config: Any, num_classes: int) -> None:
        super().__init__(trunk_width(model_config), num_classes)
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)


@register_model_head("convit_ssl_probes")
class Probes(nn.Module):
    """Linear classifiers of one feature, one per learning rate, as one matrix.

    Args:
        model_config: VISSL's model section.
        num_classes: classes.
        features: VISSL's name of the feature; gives the input width.
        learning_rates: one classifier each; used by the optimiser's groups.

    Returns logits (B, len(learning_rates), num_classes).
    """

    def __init__(
        self, model_config: Any, num_classes: int, features: str, learning_rates: list[float]
    ) -> None:
        super().__init__()
        self.features = features
        self.learning_rates = list(learning_rates)
        width = trunk_width(model_config) * feature_multiple(features)
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.classifiers = nn.ModuleList(nn.Linear(width, num_classes) for _ in self.learning_rates)
        for classifier in self.classifiers:
            assert isinstance(classifier, nn.Linear)
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.zeros_(classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every classifier, (B, classifiers, classes)."""
        normed = self.norm(x)
        return torch.stack([classifier(normed) for classifier in self.classifiers], dim=1)


def feature_multiple(name: str) -> int:
    """How many class or patch tokens a feature joins: 3 for concatCLS2+meanPATCH."""
    parts = name.split("+")
    return sum(int(p.removeprefix("concatCLS")) if p.startswith("concat") else 1 for p in parts)
