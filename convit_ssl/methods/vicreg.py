"""VICReg: views agree, features vary, and do not repeat one another (arXiv:2105.04906)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.methods.base import Crops, Method, Run, register_method
from convit_ssl.methods.batch_norm import ViewWise
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.gather import full_precision, sum_over_processes
from convit_ssl.methods.heads import mlp
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun
from convit_ssl.options import MethodOptions, option

__all__ = ["VICReg", "VICRegLoss", "VICRegOptions"]


@dataclass
class VICRegOptions(MethodOptions):
    """VICReg (arXiv:2105.04906). Defaults are those of facebookresearch/vicreg, main_vicreg.py."""

    hidden_dim: int = option(8192, "Hidden width of the head.", unit="channels", least=1)
    out_dim: int = option(8192, "Outputs of the head.", unit="channels", least=2)
    invariance_weight: float = option(
        25.0, "Weight of the distance between views.", unit="factor", least=0
    )
    variance_weight: float = option(
        25.0,
        "Weight of the hinge that keeps each channel's standard deviation at 1 or more.",
        unit="factor", least=0,
    )  # fmt: skip
    covariance_weight: float = option(
        1.0, "Weight of the covariance between channels.", unit="factor", least=0
    )


class VICRegLoss(nn.Module):
    """Invariance, variance and covariance of two views.

    All three are those of all images of all processes (which may differ in number), so the value
    is the same on each and averaged gradients equal those of one process with all images.

    Args:
        invariance, variance, covariance: weights, called lambda, mu and nu in the paper.

    Source: arXiv:2105.04906, equations 1 to 6; facebookresearch/vicreg, main_vicreg.py, lines
    194-220, which has half of each view's variance term and the sum of their covariance terms.
    """

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
    ) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def forward(
        self, first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, ""]:
        """Loss of two views, row r of each being image r."""
        with torch.autocast(first.device.type, enabled=False):
            return self._terms(torch.stack((full_precision(first), full_precision(second))))

    def _terms(self, views: Tensor) -> Tensor:
        _, batch, dim = views.shape
        count = views.new_full((1,), float(batch))
        distance = (views[0] - views[1]).square().sum().view(1)
        sums = sum_over_processes(torch.cat((views.sum(1).flatten(), distance, count)))
        total = sums[-1].detach()
        centred = views - sums[: 2 * dim].view(2, 1, dim) / total
        products = sum_over_processes(centred.transpose(1, 2) @ centred)
        covariances = products / (total - 1).clamp(min=1)
        variances = covariances.diagonal(dim1=1, dim2=2)
        hinge = (1 - (variances + 1e-4).sqrt()).relu().mean()
        repeated = (covariances.square().sum() - variances.square().sum()) / dim
        distance = sums[2 * dim] / (total * dim)
        return self.invariance * distance + self.variance * hinge + self.covariance * repeated


@register_method
class VICReg(Method[VICRegOptions]):
    """VICReg: views agree, features vary, and do not repeat one another (arXiv:2105.04906).

    Published with a ResNet-50 and LARS; optimiser and schedule here are those of arXiv:2104.02057
    for a ViT, as for the other methods of two views.
    """

    name = "vicreg"
    Options = VICRegOptions
    published = PublishedRun(300, 1024, 10, "as published, the batch of 2048 cut to 1024")
    experiment: ClassVar = {
        "optim": {
            "lr": 1.5e-4,
            "min_lr": 0.0,
            "batch_size": 2048,
            "warmup_epochs": 40,
            "weight_decay": 0.1,
        }
    }
    spreads_features = True

    def __init__(self, options: VICRegOptions, run: Run) -> None:
        super().__init__(options, run)
        self.vicreg = VICRegLoss(
            options.invariance_weight, options.variance_weight, options.covariance_weight
        )

    @classmethod
    def views(cls, options: VICRegOptions, crops: Crops) -> AugmentConfig:
        """BYOL's pair. Source: facebookresearch/vicreg, augmentations.py, lines 36-89."""
        return AugmentConfig.byol(crops.global_size, crops.global_scale)

    @classmethod
    def head(cls, options: VICRegOptions, width: int, run: Run) -> nn.Module:
        """Three layers, each view normalised separately, as published."""
        # The release's biases before batch normalisation change nothing.
        widths = [width, options.hidden_dim, options.hidden_dim, options.out_dim]
        return ViewWise(mlp(widths, use_bn=True, bias=False), run.global_crops)

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """A narrower embedding for a narrow network."""
        if small:
            out = min(8 * width, 8192)
            choose.whole("out_dim", out, f"eight times the network's {width}, at most 8192")

    @classmethod
    def loss_floats(cls, options: VICRegOptions) -> int:
        """Both matrices, and what their gradients need."""
        return 6 * options.out_dim**2

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of two views; labels are ignored."""
        loss: Tensor = self.vicreg(*output.chunk(2))
        return loss
