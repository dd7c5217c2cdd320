"""LeJEPA: views of an image meet, and all embeddings follow a Gaussian (arXiv:2511.08544)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.methods.base import (
    Crops,
    Method,
    Progress,
    Run,
    register_method,
)
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.cross_view import split_crops
from convit_ssl.methods.gather import full_precision, sum_over_processes
from convit_ssl.methods.heads import mlp
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun
from convit_ssl.options import MethodOptions, option

__all__ = ["LeJEPA", "LeJEPALoss", "LeJEPAOptions", "SIGReg"]

KNOTS, LARGEST = 17, 3.0  # of the integral over frequencies: how many, and where it ends


@dataclass
class LeJEPAOptions(MethodOptions):
    """LeJEPA (arXiv:2511.08544). Defaults are those of rbalestr-lab/lejepa."""

    sigreg_weight: float = option(
        0.05,
        "Weight w of the Gaussian term (SIGReg); the distance between views has 1 - w.",
        unit="fraction", least=0, most=1,
    )  # fmt: skip
    directions: int = option(
        1024,
        "Random directions along which the distribution is tested, drawn anew in each step.",
        unit="directions", least=1,
    )  # fmt: skip
    hidden_dim: int = option(2048, "Hidden width of the head.", unit="channels", least=1)
    out_dim: int = option(128, "Outputs of the head.", unit="channels", least=2)


class SIGReg(nn.Module):
    """How far embeddings are from a standard Gaussian, along random directions.

    Along each direction it is the statistic of Epps and Pulley: the squared distance between the
    characteristic function of the batch and that of a Gaussian, weighted by a Gaussian, times the
    number of images. The integral is the trapezoidal rule from 0 to 3, twice, as the function is
    even. The images are those of all processes, and the value is the same on each.

    Args:
        directions: how many. They are drawn anew for each ``step``, alike on all processes.

    Source: arXiv:2511.08544, section 4; rbalestr-lab/lejepa, univariate/epps_pulley.py and
    multivariate/slicing.py.
    """

    def __init__(self, directions: int = 1024) -> None:
        super().__init__()
        self.directions = directions

    def forward(self, views: Float[Tensor, "views batch dim"], step: int = 0) -> Float[Tensor, ""]:
        """Mean over directions and views."""
        frequencies = torch.linspace(0, LARGEST, KNOTS, device=views.device, dtype=views.dtype)
        gaussian = (-frequencies.square() / 2).exp()
        weights = gaussian * (2 * LARGEST / (KNOTS - 1))
        weights[[0, -1]] /= 2
        drawn = torch.randn(
            views.shape[-1], self.directions, generator=torch.Generator().manual_seed(step)
        ).to(views)
        angles = (views @ (drawn / drawn.norm(dim=0))).unsqueeze(-1) * frequencies
        sums = torch.stack((angles.cos().sum(1), angles.sin().sum(1))).flatten()
        sums = sum_over_processes(torch.cat((sums, sums.new_full((1,), float(views.shape[1])))))
        images = sums[-1].detach()
        real, imaginary = (sums[:-1] / images).view(2, -1, KNOTS)
        distance = (real - gaussian).square() + imaginary.square()
        statistic: Tensor = images * (distance @ weights).mean()
        return statistic


class LeJEPALoss(nn.Module):
    """Distance of all views from the mean of the large ones, and SIGReg of each view.

    Args:
        crops: of an image, large ones first.
        global_crops: large ones.
        weight: share of SIGReg, lambda in the paper.
        directions: see `SIGReg`.

    Raises:
        ValueError: a share outside 0 to 1.

    Source: arXiv:2511.08544, algorithm 2.
    """

    def __init__(
        self, crops: int, global_crops: int = 2, weight: float = 0.05, directions: int = 1024
    ) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise ValueError(f"sigreg_weight={weight} is a share from 0 to 1")
        self.crops, self.global_crops, self.weight = crops, global_crops, weight
        self.sigreg = SIGReg(directions)

    def forward(
        self, embeddings: Float[Tensor, "rows dim"], step: int = 0
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss, the distance and SIGReg of crop-major embeddings."""
        with torch.autocast(embeddings.device.type, enabled=False):
            views = torch.stack(split_crops(full_precision(embeddings), self.crops, "embeddings"))
            centre = views[: self.global_crops].mean(0)
            distance = (views - centre).square().mean()
            spread = self.sigreg(views, step)
        return (1 - self.weight) * distance + self.weight * spread, distance, spread


@register_method
class LeJEPA(Method[LeJEPAOptions]):
    """LeJEPA: views of an image meet while embeddings stay Gaussian (arXiv:2511.08544).

    No teacher, no pairs, no stop of gradients; one share to choose.
    """

    name = "lejepa"
    Options = LeJEPAOptions
    local_crops = 6
    smallest_share = 0.3
    published = PublishedRun(100, 256, 1, "rate and warm-up of the released example")
    experiment: ClassVar = {"optim": {"lr": 5e-4, "min_lr": 5e-7, "weight_decay": 0.05}}
    spreads_features = True

    def __init__(self, options: LeJEPAOptions, run: Run) -> None:
        super().__init__(options, run)
        crops = run.global_crops + run.local_crops
        self.lejepa = LeJEPALoss(crops, run.global_crops, options.sigreg_weight, options.directions)
        self._step = 0

    @classmethod
    def views(cls, options: LeJEPAOptions, crops: Crops) -> AugmentConfig:
        """Large and small crops, all changed alike.

        Source: rbalestr-lab/lejepa, README.md, "Data augmentation and views".
        """
        local = (crops.local_size, crops.local_count)
        made = AugmentConfig.dino(crops.global_size, *local, crops.global_scale, crops.local_scale)
        alike = (replace(crop, blur_prob=0.5, solarize_prob=0.2) for crop in made.crops)
        return replace(made, crops=tuple(alike))

    @classmethod
    def head(cls, options: LeJEPAOptions, width: int, run: Run) -> nn.Module:
        """Three layers, all crops normalised together. Source: MINIMAL.md, class ViTEncoder."""
        return mlp([width, options.hidden_dim, options.hidden_dim, options.out_dim], use_bn=True)

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """Few outputs and directions, as in the released example of 9,469 images."""
        if small:
            choose.whole("out_dim", 16, "as in the released example, a small collection")
            choose.whole("directions", 256, "as in the released example; fewer cost less time")

    @classmethod
    def loss_floats_per_row(cls, options: LeJEPAOptions) -> int:
        """Angles along all directions, their cosines, sines and gradients."""
        return 5 * options.directions * KNOTS

    def observe(self, inputs: Any, progress: Progress) -> None:
        """The step, by which directions are drawn."""
        self._step = progress.step

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of all crops; labels are ignored."""
        loss: Tensor
        loss, distance, spread = self.lejepa(output, self._step)
        self.stats["distance"] = distance.detach()
        self.stats["sigreg"] = spread.detach()
        return loss
