"""The views of an experiment: as published, and what a collection changes."""

from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from vissl.config import AttrDict

import convit_ssl.adapters  # noqa: F401
from convit_ssl.adapters.inputs import augment_config
from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import make_plan
from convit_ssl.errors import UserError
from convit_ssl.methods import METHODS
from convit_ssl.models import create_model
from tests.golden.nets import published_plan

BYOL = (0.4, 0.4, 0.2, 0.1)
SIMCLR = (0.8, 0.8, 0.8, 0.2)


@dataclass
class View:
    """A group of crops as its source describes it."""

    size: int
    count: int
    scale: tuple[float, float]
    interpolation: str
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_prob: float = 0.0
    grey_prob: float = 0.0
    blur_prob: float = 0.0
    solarize_prob: float = 0.0
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    rotate90: bool = False
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_threshold: int = 128


def unequal(scale: tuple[float, float], interpolation: str) -> list[View]:
    """Blurred always / seldom, solarised never / sometimes."""
    colours = (BYOL, 0.8, 0.2)
    return [
        View(224, 1, scale, interpolation, *colours, blur_prob=1.0),
        View(224, 1, scale, interpolation, *colours, blur_prob=0.1, solarize_prob=0.2),
    ]


PUBLISHED = {
    # facebookresearch/dino, main_dino.py, lines 108-117 and 419-456.
    "convit_dino": [
        *unequal((0.4, 1.0), "bicubic"),
        View(96, 8, (0.05, 0.4), "bicubic", BYOL, 0.8, 0.2, blur_prob=0.5),
    ],
    # google-research/simclr, data_util.py, lines 74-77, 322, 387-394, 411-417; run.py, line 240.
    "convit_simclr": [View(224, 2, (0.08, 1.0), "bicubic", SIMCLR, 0.8, 0.2, blur_prob=0.5)],
    # facebookresearch/moco-v3, main_moco.py, lines 117 and 262-285.
    "convit_moco_v3": unequal((0.08, 1.0), "bilinear"),
    # facebookresearch/barlowtwins, main.py, lines 290-321.
    "convit_barlow_twins": unequal((0.08, 1.0), "bicubic"),
    # facebookresearch/swav, src/multicropdataset.py, lines 37-52 and 71-94;
    # scripts/swav_800ep_pretrain.sh.
    "convit_swav": [
        View(224, 2, (0.14, 1.0), "bilinear", SIMCLR, 0.8, 0.2, blur_prob=0.5),
        View(96, 6, (0.05, 0.14), "bilinear", SIMCLR, 0.8, 0.2, blur_prob=0.5),
    ],
    # facebookresearch/dinov2, dinov2/data/transforms.py, lines 57-74.
    "convit_linear": [View(224, 1, (0.08, 1.0), "bicubic")],
}


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_views_on_imagenet_are_the_published_ones(experiment: str) -> None:
    config = augment_config(AttrDict(published_plan(experiment).config).CONVIT_SSL)
    found = [asdict(crop) for crop in config.crops]
    assert found == [asdict(view) for view in PUBLISHED[experiment]]
    assert not config.timm


def test_labels_are_learned_with_timms_augmentation() -> None:
    """facebookresearch/convit, main.py and datasets.py, as timm's create_transform."""
    config = augment_config(AttrDict(published_plan("convit_supervised").config).CONVIT_SSL)
    (crop,) = config.crops
    assert config.rand_augment == "rand-m9-mstd0.5-inc1"
    assert config.erase_prob == 0.25
    assert (crop.size, crop.scale, crop.interpolation) == (224, (0.08, 1.0), "bicubic")


def views(experiment: str, *options: str) -> AugmentConfig:
    arguments = [f"config={experiment}", "data=digits", "run=cpu", "trunk=convit_nano", *options]
    return augment_config(AttrDict(make_plan(compose_experiment(arguments)).config).CONVIT_SSL)


def test_every_method_has_views_of_its_own(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.pth"
    torch.save(create_model("convit_nano", img_size=224).state_dict(), teacher)
    more = {"distill": [f"teacher={teacher}"]}
    for name in METHODS:
        config = published_plan(f"convit_{name}", 1_281_167, *more.get(name, [])).config
        assert augment_config(AttrDict(config).CONVIT_SSL).num_crops >= 1, name


def test_an_unknown_method_is_refused() -> None:
    options = AttrDict(published_plan("convit_simclr").config).CONVIT_SSL
    options.method.name = "byol"
    with pytest.raises(UserError, match=r"unknown method.name .byol."):
        augment_config(options)


@pytest.mark.parametrize(
    ("experiment", "option", "message"),
    [
        ("convit_dino", "crops.global_count=3", "makes 2 global crops of each image"),
        ("convit_supervised", "crops.global_count=2", "makes 1 global crop of each image"),
        ("convit_moco_v3", "crops.local_count=4", "makes no local crops"),
    ],
)
def test_other_numbers_of_crops_are_refused(experiment: str, option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        views(experiment, option)


@pytest.mark.parametrize(
    "experiment",
    ["convit_dino", "convit_simclr", "convit_moco_v3", "convit_barlow_twins", "convit_supervised"],
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
