"""Position embeddings at another size, beside what timm and DINO do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convit_ssl.export.building import resample_positions


def embeddings(side: int) -> Tensor:
    """As a network learns them: smooth, with a little of each patch's own."""
    smooth = F.interpolate(torch.randn(1, 16, 5, 5), size=(side, side), mode="bicubic")
    return (smooth + 0.1 * torch.randn(1, 16, side, side)).flatten(2).mT.contiguous()


def by_timm(positions: Tensor, grid: tuple[int, int], antialias: bool) -> Tensor:
    layers = pytest.importorskip("timm.layers")
    resampled: Tensor = layers.resample_abs_pos_embed(
        positions, list(grid), num_prefix_tokens=0, antialias=antialias
    )
    return resampled


def by_dino(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """`interpolate_pos_encoding` of vision_transformer.py in facebookresearch/dino, its formula."""
    side = int(positions.shape[1] ** 0.5)
    as_map = positions.mT.unflatten(2, (side, side))
    scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
    return F.interpolate(as_map, scale_factor=scale, mode="bicubic").flatten(2).mT


def far(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("grid", [(24, 24), (16, 20), (14, 14), (6, 6), (9, 20)])
def test_it_is_timm_s_without_antialiasing(grid: tuple[int, int]) -> None:
    positions = embeddings(14)
    ours = resample_positions(positions, (14, 14), grid)
    assert far(ours, by_timm(positions, grid, antialias=False)) < 1e-5


@pytest.mark.parametrize(("grid", "least", "most"), [((24, 24), 0.01, 0.06), ((6, 6), 0.02, 0.3)])
def test_antialiasing_differs(grid: tuple[int, int], least: float, most: float) -> None:
    """To larger grids too: PyTorch's cubic has the parameter -0.5 with it and -0.75 without."""
    positions = embeddings(14)
    ours = resample_positions(positions, (14, 14), grid)
    assert least < far(ours, by_timm(positions, grid, antialias=True)) < most


@pytest.mark.parametrize("grid", [(24, 24), (6, 6)])
def test_dino_s_offset_of_a_tenth_of_a_patch(grid: tuple[int, int]) -> None:
    positions = embeddings(14)
    ours = resample_positions(positions, (14, 14), grid)
    assert 1e-3 < far(ours, by_dino(positions, grid)) < 0.15
