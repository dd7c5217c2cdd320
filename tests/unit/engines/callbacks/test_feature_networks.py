"""Several networks on the same images give what each gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convit_ssl.data.images import ImageFiles
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.loading.samples import SampleReader
from convit_ssl.engines.callbacks.feature_networks import SideBySide, Views


def folder_of_images(root: Path, count: int = 3) -> Listing:
    for number in range(count):
        pixels = np.full((4, 4, 3), 10 * number, np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    files = [f"{number}.png" for number in range(count)]
    return Listing(root=str(root), files=files, targets=[0] * count, classes=["a"])


def test_each_network_sees_its_view() -> None:
    networks = [nn.Flatten(1), nn.Linear(3, 2)]
    both = SideBySide(networks, [1, 0])
    batch = [torch.randn(5, 3), torch.randn(5, 2, 2)]
    made = both(batch)
    assert both.widths == [4, 2]
    first, second = made.split(both.widths, dim=1)
    assert torch.equal(first, batch[1].flatten(1))
    assert torch.equal(second, networks[1](batch[0]))


def test_a_network_of_several_outputs_is_worth_its_first() -> None:
    class Two(nn.Module):
        def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
            return [batch + 1, batch]

    assert torch.equal(SideBySide([Two()], [0])([torch.zeros(2, 3)]), torch.ones(2, 3))


def test_views_are_of_one_decoded_image(tmp_path: Path) -> None:
    images = ImageFiles(folder_of_images(tmp_path), Views([lambda i: i.size, lambda i: i.mode]))
    assert images[0][0] == ((4, 4), "RGB")


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths whose pixels are decoded."""
    found: list[str] = []
    array, image = SampleReader.array, SampleReader.image

    def seen(method: Any) -> Any:
        def read(self: SampleReader, path: str, *rest: Any, **more: Any) -> Any:
            found.append(path)
            return method(self, path, *rest, **more)

        return read

    monkeypatch.setattr(SampleReader, "array", seen(array))
    monkeypatch.setattr(SampleReader, "image", seen(image))
    return found


def test_decoded_images_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = folder_of_images(tmp_path)
    trained_on = ImageFiles(listing, cache_bytes=1 << 20)
    plain = ImageFiles(listing, replace=False)
    before = [np.asarray(plain[i][0]) for i in range(3)]
    plain.share_decoded(trained_on)
    decoded = counting(monkeypatch)
    for _ in range(2):
        for number in range(3):
            assert np.array_equal(np.asarray(trained_on[number][0]), before[number])
            assert np.array_equal(np.asarray(plain[number][0]), before[number])
    assert len(decoded) == 3


def test_images_in_another_order_share_nothing(tmp_path: Path) -> None:
    listing = folder_of_images(tmp_path)
    trained_on = ImageFiles(listing, cache_bytes=1 << 20)
    turned = Listing(listing.root, listing.files[::-1], listing.targets, listing.classes)
    other = ImageFiles(turned)
    other.share_decoded(trained_on)
    assert np.asarray(trained_on[0][0]).max() == 0
    assert np.asarray(other[0][0]).max() == 20
