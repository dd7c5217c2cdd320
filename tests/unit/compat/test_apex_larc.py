import pytest
import torch
from classy_vision.optim import build_optimizer
from torch import Tensor
from vissl.config import AttrDict
from vissl.trainer.train_task import SelfSupervisionTask

MOMENTUM, DECAY, TRUST, EPS = 0.9, 0.01, 0.02, 1e-8


def larc_config(clip: bool) -> AttrDict:
    larc = {"clip": clip, "trust_coefficient": TRUST, "eps": EPS}
    config = {"name": "sgd", "use_larc": True, "larc_config": larc, "nesterov": False}
    return AttrDict({**config, "momentum": MOMENTUM, "weight_decay": DECAY})


class NaiveLARC:
    """The rule of NVIDIA's apex/parallel/LARC.py and SGD after it, one tensor at a time."""

    def __init__(self, clip: bool) -> None:
        self.clip = clip
        self.buffers: dict[int, Tensor] = {}

    def step(self, index: int, weight: Tensor, grad: Tensor, lr: float, decay: float) -> Tensor:
        rate = TRUST * weight.norm() / (grad.norm() + decay * weight.norm() + EPS)
        if self.clip:
            rate = min(rate / lr, torch.tensor(1.0))
        update = (grad + decay * weight) * rate
        buffer = self.buffers.get(index)
        buffer = update if buffer is None else MOMENTUM * buffer + update
        self.buffers[index] = buffer
        return weight - lr * buffer


@pytest.mark.parametrize("clip", [False, True])
def test_it_is_the_update_of_apex(clip: bool) -> None:
    weights = [torch.randn(5, 3).requires_grad_(), torch.randn(7).requires_grad_()]
    decays = [DECAY, 0.0]
    groups = [
        {"params": [w], "lr": 0.3, "weight_decay": d} for w, d in zip(weights, decays, strict=True)
    ]
    optimizer = build_optimizer(larc_config(clip))
    optimizer.set_param_groups(groups)
    naive = NaiveLARC(clip)

    for _ in range(4):
        expected = []
        for index, (weight, decay) in enumerate(zip(weights, decays, strict=True)):
            weight.grad = torch.randn_like(weight)
            expected.append(naive.step(index, weight.detach(), weight.grad, 0.3, decay))
        optimizer.step(where=0.1)
        for weight, value in zip(weights, expected, strict=True):
            torch.testing.assert_close(weight.detach(), value)


def test_its_state_survives_a_checkpoint() -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = build_optimizer(larc_config(clip=False))
    optimizer.set_param_groups([weight], lr=0.1)
    weight.grad = torch.ones(3)
    optimizer.step(where=0.0)

    other = build_optimizer(larc_config(clip=False))
    other.set_param_groups([weight.detach().clone().requires_grad_()], lr=0.1)
    other.set_classy_state(optimizer.get_classy_state())

    state = next(iter(other.optimizer.state.values()))
    torch.testing.assert_close(
        state["momentum_buffer"], optimizer.optimizer.state[weight]["momentum_buffer"]
    )


def test_without_larc_it_is_sgd() -> None:
    config = larc_config(clip=False)
    config.use_larc = False
    optimizer = build_optimizer(config)
    optimizer.set_param_groups([torch.ones(3, requires_grad=True)], lr=0.1)

    assert type(optimizer.optimizer) is torch.optim.SGD


def test_the_task_no_longer_asks_for_apex() -> None:
    task = SelfSupervisionTask.__new__(SelfSupervisionTask)
    task.config = AttrDict({"OPTIMIZER": larc_config(clip=False)})

    assert task._build_optimizer() is not None
