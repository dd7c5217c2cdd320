"""The rows of a baselines study by name, and the networks that it pretrains."""

from __future__ import annotations

import argparse

PIXELS, UNTRAINED = "raw pixels", "untrained"
LABELS, RESNET = "labels alone, ConViT", "labels alone, ResNet-18"
FINE_TUNED = "pretrained ({}), fine-tuned"
DEIT = ", DeiT"


def trunks_of(args: argparse.Namespace) -> list[str]:
    """ConViT, and with ``--deit`` the plain ViT of the same size."""
    return [f"{family}_{args.size}" for family in ("convit", "deit")[: 1 + args.deit]]


def beside(row: str, trunk: str) -> str:
    """The row's name for this trunk: as it is for ConViT, and marked for DeiT."""
    return row if trunk.startswith("convit") else row.removesuffix(", ConViT") + DEIT


def of_deit(row: str) -> bool:
    """Whether a row was measured with DeiT in place of ConViT."""
    return row.endswith(DEIT)


def same_with_deit(row: str) -> str:
    """The name that a ConViT row has with DeiT."""
    return beside(row, "deit")


def same_with_convit(row: str) -> str:
    """The name that a DeiT row has with ConViT; any other row's own."""
    if not of_deit(row):
        return row
    name = row.removesuffix(DEIT)
    return LABELS if same_with_deit(LABELS) == row else name
