"""Barlow Twins: the views' cross-correlation becomes the identity (arXiv:2103.03230)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.methods.base import Crops, Method, Run, register_method
from convit_ssl.methods.batch_norm import apply_by_view
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.gather import full_precision, sum_over_processes
from convit_ssl.methods.heads import mlp
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun
from convit_ssl.options import MethodOptions, option

__all__ = ["BarlowTwins", "BarlowTwinsHead", "BarlowTwinsLoss", "BarlowTwinsOptions"]


@dataclass
class BarlowTwinsOptions(MethodOptions):
    """Barlow Twins (arXiv:2103.03230)."""

    hidden_dim: int = option(8192, "Hidden width of the head.", unit="channels", least=1)
    out_dim: int = option(8192, "Outputs of the head.", unit="channels", least=1)
    redundancy_weight: float = option(
        0.0051, "Weight of the off-diagonal correlations (lambda).", unit="factor", least=0
    )
    scale_loss: float = option(
        1.0,
        "Factor on the loss: 0.024 as published for LARS; AdamW is hardly affected by it.",
        unit="factor", above=0,
    )  # fmt: skip


class BarlowTwinsLoss(nn.Module):
    """Squared distance of the cross-correlation matrix from the identity.

    Means, variances and the matrix itself are those of all images of all
    processes (which may differ in number), so the value is the same on each and
    averaged gradients equal those of one process with all images.

    Args:
        redundancy_weight: lambda, of the entries off the diagonal.
        scale: of the whole loss (0.024 for LARS as published; 1 for AdamW).

    Source: arXiv:2103.03230, equation 1 and algorithm 1.
    """

    def __init__(self, redundancy_weight: int | float = 0.0051, scale: int | float = 1.0) -> None:
        super().__init__()
        self.redundancy_weight = redundancy_weight
        self.scale = scale

    def forward(
        self, first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, ""]:
        """Loss of two views, row r of each being image r."""
        with torch.autocast(first.device.type, enabled=False):
            correlation = _cross_correlation(full_precision(first), full_precision(second))
        diagonal = correlation.diagonal()
        invariance = (diagonal - 1).square().sum()
        redundancy = correlation.square().sum() - diagonal.square().sum()
        return self.scale * (invariance + self.redundancy_weight * redundancy)


def _cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """(dim, dim), from two collectives: the means, then all second moments."""
    dim = first.shape[1]
    count = first.new_full((1,), float(first.shape[0]))
    sums = sum_over_processes(torch.cat((first.sum(0), second.sum(0), count)))
    total = sums[-1]
    first = first - sums[:dim] / total
    second = second - sums[dim:-1] / total
    moments = torch.stack((first.square().sum(0), second.square().sum(0)))
    packed = sum_over_processes(torch.cat((first.T @ second, moments))) / total
    deviations = (packed[dim:] + 1e-5).sqrt()  # epsilon of batch normalisation
    return packed[:dim] / deviations[0].unsqueeze(1) / deviations[1]


class BarlowTwinsHead(nn.Module):
    """Three linear layers of one width, batch-normalised; the loss standardises.

    Args:
        in_dim: width of the trunk.
        hidden_dim: 8192 is published for ResNet-50, where accuracy grows with the
            width (arXiv:2103.03230, figure 4); 2048 keeps the head smaller than a
            small ViT.
        out_dim: width of the embedding.
        num_layers: linear layers.
        views: in the features of a forward pass; each is normalised separately, as published
            (barlowtwins main.py, lines 208-212).
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int = 2048,
        out_dim: int = 2048,
        num_layers: int = 3,
        views: int = 1,
    ) -> None:
        super().__init__()
        self.views = views
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.projector = mlp(widths, use_bn=True, bias=False)

    def forward(
        self, x: Float[Tensor, "rows in_dim"], views: int | None = None
    ) -> Float[Tensor, "rows out_dim"]:
        """Embeddings, not normalised.

        Args:
            x: features of one view, or of several, view-major.
            views: how many views ``x`` holds, instead of the constructor's.
        """
        return apply_by_view(self.projector, x, views or self.views)


@register_method
class BarlowTwins(Method[BarlowTwinsOptions]):
    """Barlow Twins: views agree, and features do not repeat one another (arXiv:2103.03230)."""

    name = "barlow_twins"
    Options = BarlowTwinsOptions
    published = PublishedRun(300, 1024, 10, "as published, the batch of 2048 cut to 1024")
    spreads_features = True

    def __init__(self, options: BarlowTwinsOptions, run: Run) -> None:
        super().__init__(options, run)
        self.barlow_twins = BarlowTwinsLoss(options.redundancy_weight, options.scale_loss)

    @classmethod
    def views(cls, options: BarlowTwinsOptions, crops: Crops) -> AugmentConfig:
        """BYOL's pair. Source: section 3; facebookresearch/barlowtwins, main.py, lines 290-321."""
        return AugmentConfig.byol(crops.global_size, crops.global_scale)

    @classmethod
    def head(cls, options: BarlowTwinsOptions, width: int, run: Run) -> nn.Module:
        """Three layers, each view normalised separately."""
        return BarlowTwinsHead(width, options.hidden_dim, options.out_dim, views=run.global_crops)

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """A narrower embedding for a narrow network."""
        if small:
            out = min(8 * width, 8192)
            choose.whole("out_dim", out, f"eight times the network's {width}, at most 8192")

    @classmethod
    def loss_floats(cls, options: BarlowTwinsOptions) -> int:
        """The matrix, and what its gradient needs."""
        return 3 * options.out_dim**2

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Redundancy reduction between two views; labels are ignored."""
        loss: Tensor = self.barlow_twins(*output.chunk(2))
        return loss
