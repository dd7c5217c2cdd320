"""AdamW, Muon, SGD and LARS (PyTorch, timm) as VISSL optimisers; their parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from classy_vision.optim import ClassyOptimizer, register_optimizer
from torch import nn

from convit_ssl.adapters.schedulers import WarmupCosine
from convit_ssl.evaluation import finetune
from convit_ssl.methods.linear import Probes
from convit_ssl.models.trunks import OtherTrunk

LEAST_SIDE = 16  # of a matrix that Muon steps; the positional projections of GPSA are thinner
MATRICES = "matrices"  # of a parameter group: whether Muon steps it


class TorchOptimizer(ClassyOptimizer):
    """A PyTorch optimiser with groups and schedules controlled by VISSL."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TorchOptimizer:
        """From the ``OPTIMIZER`` section."""
        return cls(config)


@register_optimizer("convit_ssl_adamw")
class FusedAdamW(TorchOptimizer):
    """Fused AdamW: one kernel for all parameters."""

    def prepare(self, param_groups: list[dict[str, Any]]) -> None:
        """Make the optimiser."""
        first, second = (float(beta) for beta in self.config["betas"])
        self.optimizer = torch.optim.AdamW(param_groups, betas=(first, second), fused=True)


@register_optimizer("convit_ssl_muon")
class MuonOfMatrices(TorchOptimizer):
    """Muon for the matrices of the blocks, AdamW for the rest."""

    def prepare(self, param_groups: list[dict[str, Any]]) -> None:
        """Make the optimiser."""
        from convit_ssl.adapters.muon import MuonAndAdamW

        first, second = (float(beta) for beta in self.config["betas"])
        self.optimizer = MuonAndAdamW(param_groups, (first, second))


@register_optimizer("convit_ssl_sgd")
class ForeachSGD(TorchOptimizer):
    """SGD with momentum, computed for all parameters at once."""

    def prepare(self, param_groups: list[dict[str, Any]]) -> None:
        """Make the optimiser."""
        momentum = float(self.config["momentum"])
        self.optimizer = torch.optim.SGD(param_groups, lr=0.0, momentum=momentum, foreach=True)


@register_optimizer("convit_ssl_lars")
class TimmLars(TorchOptimizer):
    """timm's LARS (arXiv:1708.03888) as contrastive methods use it."""

    def prepare(self, param_groups: list[dict[str, Any]]) -> None:
        """Make the optimiser."""
        from convit_ssl.adapters.lars import PublishedLars

        self.optimizer = PublishedLars(param_groups, momentum=float(self.config["momentum"]))


def orthogonalised(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon steps a parameter: a matrix of a block, and neither ends nor heads."""
    inside = ".blocks." in name
    return inside and parameter.ndim == 2 and min(parameter.shape) >= LEAST_SIDE


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to a parameter. Excludes the norms of DINO's last layer, too."""
    return finetune.decays(name, parameter) and not name.endswith("weight_g")


def parameter_groups(
    model: nn.Module,
    learning_rate: WarmupCosine,
    weight_decay: WarmupCosine | float,
    layer_decay: float | None = None,
    depth: int = 0,
    trunk: OtherTrunk | None = None,
    muon: bool = False,
) -> list[dict[str, Any]]:
    """Groups by weight decay, by layer where `layer_decay` is given, and by probe.

    Args:
        model: the VISSL model, trunk and heads.
        learning_rate: schedule, scaled for each group.
        weight_decay: schedule, or a constant.
        layer_decay: factor on the learning rate for each layer below the head.
        depth: blocks of the trunk.
        trunk: if it is not a ConViT, names its layers and the parameters without weight decay.
        muon: whether matrices of the blocks get groups of their own.

    Returns:
        Parameter groups of PyTorch, with schedules instead of numbers.
    """
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    probes = probe_rates(model)
    exempt = trunk.without_decay() if trunk is not None else set()
    layers: dict[nn.Parameter, int] | None = None
    if trunk is not None and layer_decay is not None:
        layers, top = trunk.layers()
        depth = top - 1
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = probes.get(parameter, 1.0)
        if layer_decay is not None:
            layer = layers.get(parameter, depth + 1) if layers else finetune.layer_of(name, depth)
            scale *= layer_decay ** (depth + 1 - layer)
        decayed = decays(name, parameter) and parameter not in exempt
        matrix = muon and orthogonalised(name, parameter)
        groups.setdefault((scale, decayed, matrix), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate.scaled(scale),
            "weight_decay": weight_decay if decayed else 0.0,
            **({MATRICES: True} if matrix else {}),
        }
        for (scale, decayed, matrix), parameters in groups.items()
    ]


def probe_rates(model: nn.Module) -> dict[nn.Parameter, float]:
    """The learning rate of each probe's parameters."""
    return {
        parameter: rate
        for module in model.modules()
        if isinstance(module, Probes)
        for classifier, rate in zip(module.classifiers, module.learning_rates, strict=True)
        for parameter in classifier.parameters()
    }
