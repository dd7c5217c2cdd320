"""DIET's loss against its equation, its head's size, and the targets that it is given."""

import pytest
import torch

from convit_ssl.errors import UserError
from convit_ssl.methods import Crops, Run
from convit_ssl.methods.diet import DIET, DIETLoss, DIETOptions
from tests.golden.tiny import IMAGES, tiny_task


@pytest.mark.parametrize("smoothing", [0.0, 0.8, 1.0])
def test_value_and_gradient(smoothing: float) -> None:
    scores = (3 * torch.randn(5, 7).double()).requires_grad_()
    numbers = torch.tensor([6, 0, 3, 3, 2])
    expected = torch.zeros(()).double()
    for row, number in zip(scores, numbers, strict=True):
        normaliser = torch.stack([score.exp() for score in row]).sum()
        for image, score in enumerate(row):
            share = smoothing / 7 + (1 - smoothing) * (image == int(number))
            expected = expected - share * (score.exp() / normaliser).log() / 5
    loss = DIETLoss(smoothing)(scores, numbers)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, scores)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_half_precision_is_computed_in_full() -> None:
    scores, numbers = torch.randn(6, 4).bfloat16(), torch.arange(6) % 4
    wide = DIETLoss()(scores.float(), numbers)
    assert torch.equal(DIETLoss()(scores, numbers), wide)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(DIETLoss()(scores.float(), numbers), wide)


def test_an_image_is_one_view_and_one_row_of_the_head() -> None:
    assert DIET.views(DIETOptions(), Crops(32)).num_crops == 1
    head = DIET.head(DIETOptions(), 5, Run(num_images=9))
    assert [tuple(p.shape) for p in head.parameters()] == [(9, 5)]
    with pytest.raises(UserError, match="tells images apart"):
        DIET.head(DIETOptions(), 5, Run())


def test_targets_are_the_numbers_of_the_images() -> None:
    from convit_ssl.adapters.train_step import train_step

    task = tiny_task("convit_diet")
    images, numbers = torch.zeros(IMAGES, 3, 8, 8).byte(), torch.arange(IMAGES) * 100
    task.data_iterator = iter([(images, torch.zeros(IMAGES).long(), numbers)])
    train_step(task)
    head = task.base_model.heads[0]
    assert head.weight.shape[0] == task.options.facts.images == 1000
    output = task.last_batch.model_output.detach()
    expected = torch.nn.functional.cross_entropy(output, numbers, label_smoothing=0.8)
    torch.testing.assert_close(task.last_batch.loss, expected)
