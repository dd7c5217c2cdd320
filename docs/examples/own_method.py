"""A method of your own: alignment and uniformity on the sphere (arXiv:2005.10242).

convit-ssl train plugins=own_method config=convit_ssl method=uniform data=digits run=cpu
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.methods import Crops, Method, MethodOptions, Run, register_method
from convit_ssl.methods.gather import full_precision, gather_rows
from convit_ssl.methods.heads import mlp
from convit_ssl.options import option


@dataclass
class UniformOptions(MethodOptions):
    """Each option has a default, a sentence and a range."""

    hidden_dim: int = option(1024, "Hidden width of the head.", unit="channels", least=1)
    out_dim: int = option(128, "Outputs of the head.", unit="channels", least=2)
    uniformity: float = option(1.0, "Weight of uniformity.", unit="factor", least=0)


@register_method
class Uniform(Method[UniformOptions]):
    """Pulls views of an image together and spreads images over the sphere."""

    name = "uniform"
    Options = UniformOptions

    def __init__(self, options: UniformOptions, run: Run) -> None:
        super().__init__(options, run)
        self.uniformity = options.uniformity

    @classmethod
    def views(cls, options: UniformOptions, crops: Crops) -> AugmentConfig:
        """How views are augmented; every field of AugmentConfig can be set."""
        return AugmentConfig.simclr(crops.global_size, crops.global_scale)

    @classmethod
    def head(cls, options: UniformOptions, width: int, run: Run) -> nn.Module:
        """The head on the trunk's features; it gets all crops at once, crop-major."""
        return mlp([width, options.hidden_dim, options.out_dim], use_bn=True)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of the head's output."""
        views = nn.functional.normalize(full_precision(output), dim=1).chunk(2)
        alignment = (views[0] - views[1]).square().sum(1).mean()
        self.stats["alignment"] = alignment.detach()
        return alignment + self.uniformity * sum(map(spread, views)) / 2


def spread(view: Tensor) -> Tensor:
    """Log of the mean Gaussian potential between all images, over all processes."""
    everyone = gather_rows(view)
    return torch.pdist(everyone).square().mul(-2).exp().mean().log()
