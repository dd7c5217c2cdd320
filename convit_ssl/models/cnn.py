"""The CNN that ConViT is compared with: its size alone, since VISSL builds it."""

import torch
from torch import nn

RESNETS = {"resnet50": 50}
"""Depth of each of VISSL's trunks that can be chosen by name."""


def count_cnn_parameters(name: str) -> int:
    """Parameters of a trunk of `RESNETS` without its classifier, by torchvision's of that name."""
    from torchvision.models import get_model

    with torch.device("meta"):
        network = get_model(name)
    network.fc = nn.Identity()
    return sum(parameter.numel() for parameter in network.parameters())
