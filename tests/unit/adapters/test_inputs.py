"""The data side of a task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.data import Mixup
from vissl.config import AttrDict

from convit_ssl.adapters import inputs
from convit_ssl.adapters.inputs import mix
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import make_plan


@pytest.mark.parametrize(("side", "batch"), [(8, 256), (64, 256), (128, 64), (224, 20)])
def test_small_images_are_tested_many_at_a_time(side: int, batch: int) -> None:
    assert inputs.testing_batch(side) == batch


@pytest.mark.parametrize(
    ("side", "own", "batch"),
    [(8, 32, 256), (96, 512, 256), (224, 32, 32), (224, 4, 20), (3000, 1, 1)],
)
def test_features_take_no_more_images_at_a_time_than_training(
    side: int, own: int, batch: int
) -> None:
    """256 of 224 pixels took a gigabyte more than training in batches of 32."""
    options = AttrDict({"crops": {"global_size": side}, "derived": {"batch_per_process": own}})
    assert inputs.features_batch(options) == batch


def test_every_image_of_val_is_tested_once_whatever_the_training_batch(tmp_path: Path) -> None:
    words = f"""config=convit_supervised data=digits run=cpu trunk=convit_nano data.workers=0
    trunk.patch_size=4 crops.global_size=8 optim.batch_size=10 run.dir={tmp_path}"""
    options = AttrDict(make_plan(compose_experiment(words.split())).options)
    loader = inputs.open_inputs(options, torch.device("cpu")).loader("TEST", pin_memory=False)
    sizes = [len(batch[1]) for batch in loader]
    assert sizes == [256, 256, 256, 29]
    assert len(loader) == 4


@pytest.mark.parametrize("images", [1, 2, 5])
def test_the_odd_image_of_a_batch_is_left_unmixed(images: int) -> None:
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=0, label_smoothing=0.1, num_classes=3)
    torch.manual_seed(0)
    x, target = torch.randn(images, 3, 4, 4), torch.arange(images) % 3
    last = x[-1].clone()
    mixed, shares = mix(mixup, x, target)
    assert mixed.shape == x.shape
    torch.testing.assert_close(shares.sum(1), torch.ones(images))
    if images % 2:
        assert torch.equal(mixed[-1], last)
        assert shares[-1].argmax() == target[-1]
