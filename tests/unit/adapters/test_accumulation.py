"""A batch in parts is the same batch: loss, gradients and every state of the step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convit_ssl.adapters.accumulation import Passes, Split, Trunk, check_parts
from convit_ssl.adapters.gradients import GradientBuffers
from convit_ssl.adapters.train_step import train_step
from convit_ssl.bench.measure import saved_bytes
from convit_ssl.errors import UserError
from tests.golden.tiny import TINY, counted_batches, tiny_task

METHODS = {
    **dict.fromkeys(TINY, ()),
    "convit_swav": ("trunk.drop_path_rate=0.3",),
    "convit_supervised": ("trunk.drop_path_rate=0.3",),
}


def two_steps(task: Any, start: int = 0) -> dict[str, Any]:
    """Losses and gradients of two steps, and all that is there after them."""
    torch.manual_seed(3 + start)
    np.random.seed(3 + start)  # noqa: NPY002  the state that timm's mixup draws from
    task.data_iterator = counted_batches(task, start)
    found: dict[str, Any] = {}
    for step in range(2):
        train_step(task)
        task.iteration += 1
        found[f"loss {step}"] = task.last_batch.loss
        for name, parameter in task.base_model.named_parameters():
            if parameter.grad is not None:
                found[f"gradient {step} {name}"] = whole(parameter.grad)
    state = {**task.base_model.state_dict(), **task.base_loss.state_dict()}
    return found | {f"state {name}": whole(value) for name, value in state.items()}


def whole(value: Tensor) -> Tensor:
    """A copy, of shares put together."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value.clone()


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """To 1e-5 of each tensor, and of the step's gradient where one is rounding alone."""
    assert list(found) == list(expected)
    kinds: dict[str, float] = {}
    for name, value in expected.items():
        kind = " ".join(name.split()[:2])
        kinds[kind] = max(kinds.get(kind, 0.0), float(value.abs().max()))
    for name, value in expected.items():
        largest = kinds[" ".join(name.split()[:2])]
        difference = float((found[name] - value).abs().max())
        assert difference <= 1e-5 * max(largest, 1e-3), f"{name}: {difference} of {largest}"


@pytest.mark.parametrize("experiment", TINY)
def test_parts_make_the_same_step(experiment: str) -> None:
    more = METHODS[experiment]
    whole = two_steps(tiny_task(experiment, "optim=sgd", *more))
    # Of 6 images: 1 + 2 + 1 + 2.
    assert_same(two_steps(tiny_task(experiment, "optim=sgd", *more, "optim.accumulate=4")), whole)


@pytest.mark.parametrize("experiment", ["convit_dino", "convit_moco_v3"])
def test_with_checkpointing_and_drop_path(experiment: str) -> None:
    more = ("optim=sgd", "trunk.drop_path_rate=0.4", "run.grad_checkpointing=true")
    whole = two_steps(tiny_task(experiment, *more))
    assert_same(two_steps(tiny_task(experiment, *more, "optim.accumulate=2")), whole)


def test_in_half_precision_every_weight_has_its_gradient() -> None:
    """Autocast keeps casts of weights: those of a pass without a graph would lead nowhere."""
    more = ("optim=sgd", "run.precision=bf16")
    expected = two_steps(tiny_task("convit_simclr", *more))
    found = two_steps(tiny_task("convit_simclr", *more, "optim.accumulate=2"))
    assert list(found) == list(expected)
    for name in (name for name in expected if name.startswith("gradient 0")):
        if expected[name].norm() > 1e-2:
            assert (found[name] - expected[name]).norm() < 0.1 * expected[name].norm(), name


def test_dropout_of_both_passes_is_the_same() -> None:
    """Its masks are other ones than the whole batch's, so the same step is taken twice."""
    more = ("optim=sgd", "trunk.drop_rate=0.5", "optim.accumulate=2")
    task = tiny_task("convit_simclr", *more)
    seen: list[list[Tensor]] = [[], []]
    task.base_model.trunk.norm.register_forward_hook(
        lambda module, inputs, output: seen[torch.is_grad_enabled()].append(output.detach())
    )
    task.data_iterator = counted_batches(task)
    train_step(task)
    (first, second), (second_again, first_again) = seen  # the last part first
    assert torch.allclose(first, first_again, atol=1e-6)
    assert torch.allclose(second, second_again, atol=1e-6)
    assert not torch.allclose(first, second, atol=1e-2)


def test_a_part_keeps_its_share_of_activations() -> None:
    kept = []
    for parts in (1, 2):
        task = tiny_task("convit_simclr", f"optim.accumulate={parts}")
        views, target, _ = next(counted_batches(task))
        trunk = Trunk(task.base_model, Split.of(task.on_device(views, target)[0], parts))
        kept.append(saved_bytes(lambda trunk=trunk: trunk.features(0), task.base_model))
    assert kept[1] < 0.6 * kept[0]


def test_no_graph_of_the_trunk_is_kept_while_heads_and_loss_have_theirs() -> None:
    task = tiny_task("convit_simclr", "optim.accumulate=2")
    views, target, _ = next(counted_batches(task))
    passes = Passes(task, task.on_device(views, target)[0])
    assert saved_bytes(passes.forward, task.base_model) == 0
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in passes.leaves)
    assert passes.kept == []


def test_where_the_loss_is_small_the_last_part_keeps_its_graph() -> None:
    task = tiny_task("convit_dino", "optim.accumulate=2")
    views, target, _ = next(counted_batches(task))
    passes = Passes(task, task.on_device(views, target)[0])
    passes.forward()
    assert all(feature.grad_fn is not None for feature in passes.kept)


def test_gradients_of_steps_in_parts_stay_where_they_lie() -> None:
    """Allocated anew, they would cut free memory into pieces; see `GradientBuffers`."""
    task = tiny_task("convit_simclr", "optim=sgd", "optim.accumulate=2")
    task.data_iterator = counted_batches(task)
    places = []
    for _ in range(2):
        train_step(task)
        named = task.base_model.named_parameters()
        places.append({name: p.grad.data_ptr() for name, p in named if p.grad is not None})
    assert places[0] == places[1]


def test_what_no_gradient_reaches_has_none_though_it_had_one() -> None:
    """As after ``zero_grad``: weight decay and momentum would move it otherwise."""
    first, second = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.SGD([first, second], lr=0.1)
    (first.sum() + second.sum()).backward()
    buffers = GradientBuffers(optimizer)
    second.sum().backward()
    buffers.drop_untouched()
    assert first.grad is None
    assert torch.equal(second.grad, torch.ones(2))


def test_views_stay_bytes_until_their_part() -> None:
    task = tiny_task("convit_simclr", "optim.accumulate=2")
    target = torch.zeros(4, dtype=torch.int64)
    views = [torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8) for _ in range(2)]
    held, _ = task.on_device(views, target)
    assert [view.raw.dtype for view in held] == [torch.uint8] * 2
    task.accumulate = 1
    whole, _ = task.on_device(views, target)
    for view, expected in zip(held, whole, strict=True):
        assert torch.equal(view[1:3], expected[1:3])


def test_views_are_put_together_in_their_order() -> None:
    views = [torch.arange(5.0)[:, None] + 10 * crop for crop in range(3)]
    split = Split.of(views, 3)
    parts = [torch.cat([view[split.rows(part)] for view in views]) for part in range(3)]
    whole = split.join(parts)
    assert torch.equal(whole, torch.cat(views))
    for part, expected in enumerate(parts):
        assert torch.equal(split.cut(whole, part), expected)


def test_a_trunk_with_batch_normalisation_is_refused() -> None:
    model = nn.ModuleDict({"trunk": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))})
    check_parts(model, 1)
    with pytest.raises(UserError, match=r"accumulate=2: .*batch normalisation.*accumulate=1"):
        check_parts(model, 2)
