"""What decoded images and a frozen teacher add to the memory of a run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convit_ssl.adapters import teachers
from convit_ssl.engines.memory.images import MIB, decoded_mib, teacher_mib

DRAWINGS = {"native_size": [333, 336], "images": 1077}


def test_decoded_images_count_where_they_fit_together() -> None:
    assert decoded_mib(DRAWINGS, {}, 1) == pytest.approx(333 * 336 * 3 * 1077 / MIB)
    assert decoded_mib(DRAWINGS, {}, 4) == 0  # of 1 GiB for all processes of a machine
    assert decoded_mib({**DRAWINGS, "images": 10_000}, {}, 1) == 0
    native = {"depth": "native", "channels": [1, 2, 3, 4]}
    few = {**DRAWINGS, "images": 10}
    assert decoded_mib(few, native, 1) == pytest.approx(333 * 336 * 16 * 10 / MIB)
    assert decoded_mib(few, {"tiles": 64}, 1) == 0


def test_a_teacher_counts_its_weights_and_its_largest_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Teacher(nn.Module):
        size = (32, 16)

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 10, 1, bias=False), nn.ReLU(), nn.Flatten())

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.body(images)
            return found

    monkeypatch.setattr(teachers, "open_teacher", lambda name, settings: Teacher())
    largest = 2 * 10 * 32 * 16  # what the ReLU reads and gives
    expected = (30 + 64 * largest) * 4 / MIB
    assert teacher_mib({"name": "distill", "teacher": "any"}, {}, 64) == pytest.approx(expected)
    assert teacher_mib({"name": "simclr"}, {}, 64) == 0
    assert torch.is_grad_enabled()
