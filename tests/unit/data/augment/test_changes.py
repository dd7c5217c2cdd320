"""Each part of the augmentation can be set, for all views or for each kind of view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convit_ssl.data.augment.changes import PROBABILITIES
from convit_ssl.data.augment.spec import AugmentConfig, build_augmentation
from convit_ssl.errors import UserError

DINO = AugmentConfig.dino(16, 8, 2)


def test_nothing_given_changes_nothing() -> None:
    assert DINO.adapt() == DINO


@pytest.mark.parametrize(("name", "field"), PROBABILITIES.items())
def test_one_number_is_for_all_views(name: str, field: str) -> None:
    found = DINO.adapt(**{name: 0.3})
    values = [getattr(crop, field) for crop in found.crops]
    assert values == ([0.0, 0.3, 0.0] if name == "solarize" else [0.3, 0.3, 0.3])


@pytest.mark.parametrize(("name", "field"), PROBABILITIES.items())
def test_a_list_is_for_each_kind_of_view(name: str, field: str) -> None:
    two = DINO.adapt(**{name: [0.1, 0.2]})
    assert [getattr(crop, field) for crop in two.crops] == [
        0.1, 0.2, getattr(DINO.crops[2], field)
    ]  # fmt: skip
    three = DINO.adapt(**{name: [0.1, 0.2, 0.3]})
    assert [getattr(crop, field) for crop in three.crops] == [0.1, 0.2, 0.3]


def test_crops_made_alike_are_told_apart_by_a_list() -> None:
    swav = AugmentConfig.swav(16, 8, 4).adapt(blur=[1.0, 0.1], solarize=[0.0, 0.2, 0.3])
    assert [crop.count for crop in swav.crops] == [1, 1, 4]
    assert [crop.blur_prob for crop in swav.crops] == [1.0, 0.1, 0.5]
    assert [crop.solarize_prob for crop in swav.crops] == [0.0, 0.2, 0.3]
    assert swav.num_crops == 6


def test_strengths_are_set_one_by_one() -> None:
    found = DINO.adapt(hue=0.0, saturation=0.2)
    assert {crop.jitter for crop in found.crops} == {(0.4, 0.4, 0.2, 0.0)}
    differing = DINO.adapt(brightness=[0.1, 0.9])
    assert [crop.jitter[0] for crop in differing.crops] == [0.1, 0.9, 0.4]


def test_solarisation_of_a_method_without_it() -> None:
    assert AugmentConfig.simclr(16).adapt(solarize=0.2).crops[0].solarize_prob == 0.2


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (AugmentConfig.crop_and_flip(16), {"hue": 0.1}, "augmentation.jitter=0.8"),
        (AugmentConfig.crop_and_flip(16), {"jitter": 0.5}, "augmentation.brightness=0.4"),
        (AugmentConfig.crop_and_flip(16), {"blur": [0.1, 0.2]}, "one view"),
        (AugmentConfig.supervised(16), {"blur": 0.5}, "method.rand_augment"),
        (AugmentConfig.supervised(16), {"hue": 0.1}, "method.color_jitter"),
    ],
)
def test_what_would_do_nothing_is_refused(
    config: AugmentConfig, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        config.adapt(**changes)


def test_changes_for_labels_that_timm_makes_are_taken() -> None:
    found = AugmentConfig.supervised(16).adapt(horizontal_flip=0.0, solarize=0.0)
    assert found.crops[0].horizontal_flip == 0.0


@pytest.mark.parametrize("pipeline", ["fast", "pil"])
def test_pixels_keep_their_colour_without_hue_and_grey(pipeline: str) -> None:
    """A red image stays red: hue and grey are off, and nothing else mixes channels."""
    image: Any = np.zeros((24, 24, 3), np.uint8)
    image[..., 0] = 200
    if pipeline == "pil":
        from PIL import Image

        image = Image.fromarray(image)
    quiet = {"hue": 0.0, "saturation": 0.0, "grey": 0.0, "solarize": 0.0, "jitter": 1.0}
    config = DINO.adapt(**quiet, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    made: Any = build_augmentation(config, pipeline)
    for seed in range(5):
        for crop in made(image, seed=seed):
            red, green, blue = (float(crop[i].float().mean()) for i in range(3))
            assert red > 2 * max(green, blue)
