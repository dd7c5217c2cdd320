"""Crops of several sizes: order, one call a size."""

import torch
from torch import Tensor

from convit_ssl.methods import forward_crops, forward_packed, group_by_size


def test_order_is_kept_with_one_call_per_size() -> None:
    sizes = [(8, 8), (4, 6), (8, 8), (4, 6), (6, 4)]
    crops = [
        torch.randn(batch, 3, *size) for batch, size in zip((2, 1, 3, 2, 2), sizes, strict=True)
    ]
    calls: list[tuple[int, ...]] = []

    def trunk(images: Tensor) -> Tensor:
        calls.append(tuple(images.shape))
        return images.flatten(1)[:, :5] * 2

    assert group_by_size(crops) == [[0, 2], [1, 3], [4]]
    features = forward_crops(trunk, crops)
    assert calls == [(5, 3, 8, 8), (3, 3, 4, 6), (2, 3, 6, 4)]
    for crop, feature in zip(crops, features, strict=True):
        assert torch.equal(feature, crop.flatten(1)[:, :5] * 2)
    assert torch.equal(forward_packed(trunk, crops), torch.cat(features))
