"""The blur of ``fast`` and ``device`` against Pillow's, which the published code uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from convit_ssl.data.augment.box_blur import blur_array, blur_batch, box_weights
from convit_ssl.data.augment.fast import apply_crop
from convit_ssl.data.augment.parameters import CropParameters
from convit_ssl.data.augment.spec import CropConfig

# The published range, and what it becomes for crops of 8 to 96 pixels: 0.1 * 8 / 224 and up.
SIGMAS = [
    *(0.1 * 8 / 224, 0.02, 0.05, 0.08, 2.0 * 8 / 224),
    *(number / 20 for number in range(2, 41)),
    *(0.1234, 0.571, 0.857, 1.7321, 3.0, 5.5),
]
SIZES = [(8, 8), (2, 3), (12, 31), (64, 64)]


def images(size: tuple[int, int]) -> list[np.ndarray]:
    """Noise, hard edges, and one bright pixel: what rounding and borders show on."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (*size, 3))
    edges = generator.integers(0, 2, (*size, 3)) * 255
    bright = np.zeros((*size, 3), int)
    bright[size[0] // 2, size[1] // 2] = 255
    return [image.astype(np.uint8) for image in (noise, edges, bright)]


def pillow(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


@pytest.mark.parametrize("size", SIZES)
def test_both_pipelines_blur_as_pillow(size: tuple[int, int]) -> None:
    for image in images(size):
        expected = np.stack([pillow(image, sigma) for sigma in SIGMAS]).astype(int)
        arrays = np.stack([blur_array(image.copy(), sigma) for sigma in SIGMAS])
        batch = torch.from_numpy(image).permute(2, 0, 1).float().expand(len(SIGMAS), -1, -1, -1)
        blurred = blur_batch(batch.clone(), torch.tensor(SIGMAS)).permute(0, 2, 3, 1).numpy()
        for found in (arrays.astype(int), blurred.astype(int)):
            difference = np.abs(found - expected)
            # Where a pass ends midway between two levels, Pillow's own rounding varies.
            worst = [f"{s:g}" for s, d in zip(SIGMAS, difference, strict=True) if d.max() > 2]
            assert not worst
            assert np.median(difference.reshape(len(SIGMAS), -1).mean(1)) < 0.01
            assert difference.mean() < 0.06


def test_grey_images_of_one_channel() -> None:
    image = images((16, 24))[0][..., 0].copy()
    for sigma in SIGMAS:
        found = blur_array(image.copy(), sigma).astype(int)
        assert np.abs(found - pillow(image, sigma).astype(int)).max() <= 2


@pytest.mark.parametrize("sigma", [0.2, 0.3, 0.4, 1.0, 2.0])
def test_sigma_is_the_standard_deviation(sigma: float) -> None:
    """Of the weights; a Gaussian sampled at whole pixels has 0.088 at 0.3."""
    side, inside, beyond = box_weights(sigma)
    box = np.array([beyond, *[inside] * (2 * side + 1), beyond])
    weights = np.convolve(np.convolve(box, box), box)
    distance = np.arange(len(weights)) - len(weights) // 2
    assert weights.sum() == pytest.approx(1.0)
    assert np.sqrt((weights * distance**2).sum()) == pytest.approx(sigma, abs=1e-6)


def test_small_sigmas_reach_the_crop_unrounded() -> None:
    """A sigma of 0.071, that of the strongest blur on 8 pixels, was rounded to two digits."""
    image = images((64, 64))[1]
    drawn = CropParameters(0, 0, 64, 64, sigma=0.1349)
    found = apply_crop(image, CropConfig(64), drawn).astype(int)
    assert np.abs(found - pillow(image, 0.1349).astype(int)).mean() < 0.02
