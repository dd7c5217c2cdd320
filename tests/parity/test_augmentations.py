"""The pipelines against torchvision, against each other, and in distribution."""

from __future__ import annotations

import random
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy import stats
from torchvision import transforms
from torchvision.transforms import functional as tvf

from convit_ssl.data.augment.device import DeviceAugmentation, DeviceCanvas
from convit_ssl.data.augment.evaluation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    evaluation_transform,
)
from convit_ssl.data.augment.fast import FastAugmentation, Normalize, apply_crop, jitter, resize
from convit_ssl.data.augment.parameters import BRIGHTNESS, CONTRAST, HUE, SATURATION, draw_crops
from convit_ssl.data.augment.randomness import sample_seed
from convit_ssl.data.augment.spec import AugmentConfig, CropConfig, build_augmentation


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """scikit-learn's two photographs at ImageNet's usual size."""
    from sklearn.datasets import load_sample_images

    return [
        Image.fromarray(image).resize((500, 375), Image.Resampling.BICUBIC)
        for image in load_sample_images().images
    ]


class ReferenceBlur:
    """As facebookresearch/dino describes it: probability, then radius."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        if not random.random() <= self.p:
            return image
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


class ReferenceSolarization:
    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.solarize(image) if random.random() < self.p else image


def reference_dino() -> list[transforms.Compose]:
    flip_and_jitter = [
        transforms.RandomHorizontalFlip(p=0.5),
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        transforms.RandomGrayscale(p=0.2),
    ]
    normalize = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    bicubic = transforms.InterpolationMode.BICUBIC

    def crop(size: int, scale: tuple[float, float]) -> transforms.RandomResizedCrop:
        return transforms.RandomResizedCrop(size, scale=scale, interpolation=bicubic)

    first = [crop(224, (0.4, 1.0)), *flip_and_jitter, ReferenceBlur(1.0), *normalize]
    second = [
        crop(224, (0.4, 1.0)),
        *flip_and_jitter,
        ReferenceBlur(0.1),
        ReferenceSolarization(0.2),
        *normalize,
    ]
    local = [crop(96, (0.05, 0.4)), *flip_and_jitter, ReferenceBlur(0.5), *normalize]
    return [transforms.Compose(steps) for steps in (first, second, *[local] * 4)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pil_dino_is_bit_identical_to_the_published_composition(
    photos: list[Image.Image], seed: int
) -> None:
    ours = build_augmentation(AugmentConfig.dino(num_local=4), "pil")
    random.seed(seed)
    torch.manual_seed(seed)
    expected = [transform(photos[0]) for transform in reference_dino()]
    random.seed(seed)
    torch.manual_seed(seed)
    found = ours(photos[0])
    assert len(found) == len(expected) == 6
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_pil_seed_decides_and_leaves_the_global_state_alone(photos: list[Image.Image]) -> None:
    ours = build_augmentation(AugmentConfig.simclr(64), "pil")
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    first = ours(photos[0], seed=3)
    assert torch.equal(torch.rand(1), before)
    again = ours(photos[0], seed=3)
    other = ours(photos[0], seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_timm_augmentation_is_timms(photos: list[Image.Image]) -> None:
    from timm.data import create_transform

    reference = create_transform(
        (3, 64, 64),
        is_training=True,
        color_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    ours = build_augmentation(AugmentConfig.supervised(64), "fast")
    for seed in range(4):
        np.random.seed(seed)  # noqa: NPY002  the state that timm draws from
        random.seed(seed)
        torch.manual_seed(seed)
        expected = reference(photos[0])
        assert torch.equal(ours(photos[0], seed=seed), expected)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (64, 64), (8, 8), (301, 299)])
@pytest.mark.parametrize(("img_size", "ratio"), [(224, 0.875), (64, 1.0), (96, 0.9)])
def test_evaluation_transform_is_torchvisions(
    photos: list[Image.Image], size: tuple[int, int], img_size: int, ratio: float
) -> None:
    image = photos[1].resize(size)
    reference = transforms.Compose(
        [
            transforms.Resize(int(img_size / ratio), transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(img_size),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    found = evaluation_transform(img_size, crop_ratio=ratio)(image)
    torch.testing.assert_close(found, reference(image), rtol=0, atol=0)


def test_evaluation_transform_of_a_rectangle(photos: list[Image.Image]) -> None:
    assert evaluation_transform((96, 160))(photos[0]).shape == (3, 96, 160)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", [(0, 0, 500, 375), (40, 30, 340, 260), (100, 100, 130, 160)])
def test_fast_resize_is_within_one_level_of_pillow(
    photos: list[Image.Image], interpolation: str, box: tuple[int, int, int, int]
) -> None:
    mode = Image.Resampling[interpolation.upper()]
    expected = np.asarray(photos[0].crop(box).resize((96, 80), mode)).astype(int)
    found = resize(np.array(photos[0].crop(box)), (80, 96), interpolation).astype(int)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(
    ("operation", "factor", "reference", "levels"),
    [
        (BRIGHTNESS, 1.35, tvf.adjust_brightness, 1),
        (CONTRAST, 0.65, tvf.adjust_contrast, 1),
        (CONTRAST, 1.4, tvf.adjust_contrast, 2),
        (SATURATION, 1.7, tvf.adjust_saturation, 2),
        (SATURATION, 0.3, tvf.adjust_saturation, 2),
        (HUE, 0.1, tvf.adjust_hue, 8),
        (HUE, -0.2, tvf.adjust_hue, 8),
    ],
)
def test_fast_jitter_is_torchvisions(
    photos: list[Image.Image], operation: int, factor: float, reference: object, levels: int
) -> None:
    expected = np.asarray(reference(photos[0], factor)).astype(int)  # type: ignore[operator]
    found = jitter(np.array(photos[0]), operation, factor).astype(int)
    difference = np.abs(found - expected)
    assert difference.max() <= levels
    assert difference.mean() < 1.5


def everything(size: int) -> AugmentConfig:
    """Every operation often, so that a few draws meet all of them."""
    crop = CropConfig(
        size,
        scale=(0.1, 1.0),
        horizontal_flip=0.5,
        vertical_flip=0.5,
        rotate90=True,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_prob=0.7,
        grey_prob=0.3,
        blur_prob=0.5,
        solarize_prob=0.3,
    )
    return AugmentConfig((replace(crop, count=3), replace(crop, size=40, interpolation="bilinear")))


@pytest.mark.parametrize("size", [48, 96])
def test_device_carries_out_the_same_draws_as_fast(photos: list[Image.Image], size: int) -> None:
    config = everything(size)
    image = np.array(photos[0].resize((120, 90)))
    fast, canvas = FastAugmentation(config), DeviceCanvas(config, canvas=128)
    finish, normalize = DeviceAugmentation(config), Normalize(config.mean, config.std)
    seeds = range(16)
    samples = [canvas(image, seed=seed) for seed in seeds]
    batches = finish(*(torch.stack(parts) for parts in zip(*samples, strict=True)))
    mean = torch.tensor(config.mean).view(3, 1, 1) * 255
    std = torch.tensor(config.std).view(3, 1, 1) * 255
    solarized = 0
    for seed in seeds:
        drawn = draw_crops(config, 90, 120, seed)
        for number, crop in enumerate(fast(image, seed=seed)):
            one = batches[number][seed] * std + mean
            other = normalize(crop[None])[0] * std + mean
            difference = (one - other).abs()
            if drawn[number].solarize:
                # A level of rounding at the threshold inverts the pixel.
                solarized += 1
                assert float(difference.median()) <= 2.0
            else:
                assert float(difference.max()) <= 14.0
            assert float(difference.mean()) <= 2.5
    assert solarized > 5


def test_pillow_carries_out_the_same_draws_as_fast(photos: list[Image.Image]) -> None:
    config = AugmentConfig.dino(96, 48, 2)
    operations = (
        tvf.adjust_brightness,
        tvf.adjust_contrast,
        tvf.adjust_saturation,
        tvf.adjust_hue,
    )
    groups = [crop for crop in config.crops for _ in range(crop.count)]
    for seed in range(12):
        for crop, drawn in zip(groups, draw_crops(config, 375, 500, seed), strict=True):
            found = apply_crop(np.array(photos[0]), crop, drawn)
            image = tvf.resized_crop(
                photos[0],
                drawn.top,
                drawn.left,
                drawn.height,
                drawn.width,
                list(crop.height_width),
                transforms.InterpolationMode.BICUBIC,
            )
            image = tvf.hflip(image) if drawn.flip else image
            for operation, factor in drawn.jitter:
                image = operations[operation](image, factor)
            image = tvf.rgb_to_grayscale(image, 3) if drawn.grey else image
            if drawn.sigma:
                image = image.filter(ImageFilter.GaussianBlur(drawn.sigma))
            image = ImageOps.solarize(image) if drawn.solarize else image
            difference = np.abs(found.astype(int) - np.asarray(image).astype(int))
            assert np.median(difference) <= 2
            assert difference.mean() <= (6.0 if drawn.solarize else 2.5)


def statistics(crops: np.ndarray) -> dict[str, np.ndarray]:
    """Per crop (N, H, W, 3) uint8: brightness, contrast, colourfulness, sharpness, hue."""
    values = crops.astype(np.float64)
    grey = values @ np.array([0.299, 0.587, 0.114])
    hue = [cv2.cvtColor(crop, cv2.COLOR_RGB2HSV_FULL)[..., 0].mean() for crop in crops]
    return {
        "mean": grey.mean((1, 2)),
        "contrast": grey.std((1, 2)),
        "colour": (values.max(-1) - values.min(-1)).mean((1, 2)),
        "sharpness": np.abs(np.diff(grey, axis=2)).mean((1, 2)),
        "hue": np.array(hue),
    }


def test_the_three_pipelines_have_one_distribution(photos: list[Image.Image]) -> None:
    """Two-sample Kolmogorov-Smirnov of five statistics, and the histogram of values."""
    config = AugmentConfig.dino(64, 32, 1)
    image = photos[0].resize((160, 120), Image.Resampling.BICUBIC)
    count = 300
    pil = build_augmentation(config, "pil")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.mean, config.std))

    def levels(normalised: torch.Tensor) -> np.ndarray:
        return ((normalised * std + mean) * 255).round().byte().movedim(-3, -1).numpy()

    found: dict[str, list[np.ndarray]] = {}
    samples = [pil(image, seed=sample_seed(0, seed)) for seed in range(count)]
    found["pil"] = [levels(torch.stack(crops)) for crops in zip(*samples, strict=True)]
    fast = build_augmentation(config, "fast")
    array = np.array(image)
    samples = [fast(array, seed=sample_seed(1, seed)) for seed in range(count)]
    found["fast"] = [torch.stack(c).movedim(1, -1).numpy() for c in zip(*samples, strict=True)]
    canvas, finish = DeviceCanvas(config), DeviceAugmentation(config)
    parts = [canvas(array, seed=sample_seed(2, seed)) for seed in range(count)]
    batches = finish(*(torch.stack(part) for part in zip(*parts, strict=True)))
    found["device"] = [levels(batch) for batch in batches]
    for number in range(config.num_crops):
        expected = statistics(found["pil"][number])
        histogram = np.bincount(found["pil"][number].ravel() // 16, minlength=16)
        for name in ("fast", "device"):
            for key, values in statistics(found[name][number]).items():
                assert stats.ks_2samp(values, expected[key]).pvalue > 1e-3, (name, number, key)
            other = np.bincount(found[name][number].ravel() // 16, minlength=16)
            distance = np.abs(other / other.sum() - histogram / histogram.sum()).sum() / 2
            assert distance < 0.06, (name, number, distance)
