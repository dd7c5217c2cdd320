import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

MODULES = ["vissl.data.ssl_transforms.rand_auto_aug", "timm.data.auto_augment"]


def noise(mode: str = "RGB") -> Image.Image:
    shape = (16, 16) if mode == "L" else (16, 16, 3)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("name", MODULES)
def test_every_operation_at_every_strength(name: str) -> None:
    augment = importlib.import_module(name)
    for operation in augment.NAME_TO_OP:
        for magnitude in range(11):
            op = augment.AugmentOp(operation, prob=1.0, magnitude=magnitude, hparams={})
            assert op(noise()).size == (16, 16)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("bits", range(9))
def test_the_highest_bits_stay(name: str, mode: str, bits: int) -> None:
    op: Callable[..., Any] = importlib.import_module(name).NAME_TO_OP["PosterizeIncreasing"]
    image = noise(mode)

    kept = np.asarray(op(image, bits))

    expected = np.asarray(image) & (256 - 2 ** (8 - bits))
    np.testing.assert_array_equal(kept, expected)


def test_the_module_functions_are_exchanged_too() -> None:
    for name in MODULES:
        augment = importlib.import_module(name)
        assert augment.posterize is augment.NAME_TO_OP["Posterize"]
        assert augment.posterize.__module__ == "convit_ssl.compat.posterize"
