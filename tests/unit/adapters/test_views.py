"""The views of an experiment: what a collection changes in what a method is published with."""

import pytest

import convit_ssl.adapters  # noqa: F401
from convit_ssl.adapters.inputs import augment_config
from convit_ssl.data.augment import AugmentConfig
from convit_ssl.engines.config import compose_experiment
from convit_ssl.engines.plan import make_plan


def views(experiment: str, *options: str) -> AugmentConfig:
    from vissl.config import AttrDict

    arguments = [f"config={experiment}", "data=digits", "run=cpu", "trunk=convit_nano", *options]
    return augment_config(AttrDict(make_plan(compose_experiment(arguments)).config).CONVIT_SSL)


@pytest.mark.parametrize(
    "experiment", ["convit_dino", "convit_simclr", "convit_moco_v3", "convit_supervised"]
)
def test_digits_stay_whole_upright_and_bright(experiment: str) -> None:
    for crop in views(experiment).crops:
        assert crop.scale == (0.75, 1.0)
        assert crop.horizontal_flip == 0.0
        assert crop.solarize_prob == 0.0


def test_a_given_option_wins_over_the_collections() -> None:
    options = ("augmentation.min_crop_scale=0.1", "augmentation.solarize=0.3")
    first, second = views("convit_dino", *options, "crops.global_scale=[0.3,0.9]").crops
    assert first.scale == second.scale == (0.3, 0.9)
    assert (first.solarize_prob, second.solarize_prob) == (0.0, 0.3), "only where it is published"


def test_local_crops_stay_small() -> None:
    local = views("convit_dino", "crops.local_count=2", "crops.local_size=4").crops[-1]
    assert local.scale[1] < 0.6
