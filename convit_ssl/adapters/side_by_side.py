"""Shares of a batch that pass through the trunk in parallel, each in its own thread.

Threads that share every operation wait for each other after each one. Here each thread takes some
images through the whole trunk, forward and backward, and threads wait for each other only twice a
step. Heads and loss see the features of the whole batch, as in `accumulation`, and the gradients
of the shares are added in their order, so a step gives the same result as in one thread, up to
rounding. Threads share the weights; unlike processes, they duplicate only gradients.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convit_ssl.adapters.accumulation import Split, Trunk
from convit_ssl.machine import threads_of_one_core
from convit_ssl.models import ConViT

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask

MOST_MIB = 2048.0  # of gradients that shares may take besides those of the weights
Context = Callable[[], contextlib.AbstractContextManager[Any]]


class Threads:
    """Threads that use one core each, and twins of a trunk for them.

    Args:
        count: number of threads, at least 2.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = threads_of_one_core(count)
        self._twins: dict[int, tuple[nn.Module, list[nn.Module]]] = {}

    def map(self, job: Callable[..., Any], *items: Sequence[Any]) -> list[Any]:
        """Run a job for each item and return the results in order; exceptions are raised here."""
        return list(self._pool.map(job, *items))

    def twins(self, trunk: nn.Module, count: int) -> list[nn.Module]:
        """Modules that share only the weights of a trunk.

        Args:
            trunk: to copy, in its current mode.
            count: number of twins.
        """
        _, made = self._twins.setdefault(id(trunk), (trunk, []))
        while len(made) < count:
            made.append(_twin(trunk))
        for twin in made[:count]:
            if twin.training != trunk.training:
                twin.train(trunk.training)
            for own, other in zip(_switches(twin), _switches(trunk), strict=True):
                own.gives_tokens = other.gives_tokens
        return made[:count]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
        self._twins.clear()


def _twin(trunk: nn.Module) -> nn.Module:
    shared = itertools.chain(trunk.parameters(), trunk.buffers())
    return copy.deepcopy(trunk, {id(tensor): tensor for tensor in shared})


def _switches(trunk: nn.Module) -> list[Any]:
    return [module for module in trunk.modules() if hasattr(module, "gives_tokens")]


class Shares:
    """A batch that threads take through a trunk, one share each.

    Args:
        threads: to use.
        model: VISSL's, with ``trunk`` and ``heads``.
        views: one batch of images, or a list of them.
        context: context manager for the trunk's computations, such as autocast.
    """

    def __init__(self, threads: Threads, model: Any, views: Any, context: Context) -> None:
        whole = Split.of(views, 1)
        self.split = Split.of(views, min(threads.count, whole.images))
        self.threads, self.model, self.context = threads, model, context
        self.trunk = Trunk(model, self.split)
        self.kept: list[list[Tensor]] = []
        self.leaves: list[Tensor] = []

    def features(self, learn: bool) -> list[Tensor]:
        """Each named feature of the batch, crop-major and without a graph.

        Args:
            learn: keep the graphs for `backward`.
        """
        twins = self.threads.twins(self.model.trunk, self.split.parts)

        def compute(part: int) -> list[Tensor]:
            with torch.set_grad_enabled(learn), self.context():
                return self.trunk.features(part, twins[part])

        found = self.threads.map(compute, range(self.split.parts))
        self.kept = found if learn else []
        joined = zip(*([f.detach() for f in share] for share in found), strict=True)
        return [self.split.join(named) for named in joined]

    def forward(self) -> None:
        """Compute the features of all shares."""
        self.leaves = [feature.requires_grad_() for feature in self.features(learn=True)]

    def output(self) -> Any:
        """The output of the heads for the batch, with a graph that starts at the features."""
        return self.model.heads_forward(self.leaves, self.model.heads)

    def backward(self) -> None:
        """Continue the backward pass of the loss from the features through the trunk."""
        weights = [p for p in self.model.trunk.parameters() if p.requires_grad]
        gradients = [leaf.grad for leaf in self.leaves]

        def through(part: int) -> tuple[Tensor | None, ...]:
            pairs = [
                (feature, self.split.cut(gradient, part))
                for feature, gradient in zip(self.kept[part], gradients, strict=True)
                if gradient is not None and feature.requires_grad
            ]
            self.kept[part] = []
            if not pairs:
                return (None,) * len(weights)
            features, found = zip(*pairs, strict=True)
            return torch.autograd.grad(features, weights, found, allow_unused=True)

        add_gradients(weights, self.threads.map(through, range(self.split.parts)))


@torch.no_grad()
def add_gradients(
    weights: Sequence[nn.Parameter], shares: Sequence[Sequence[Tensor | None]]
) -> None:
    """Add the gradients of all shares to those of the weights, share by share.

    Args:
        weights: that the gradients belong to.
        shares: a gradient for each weight, or None where a share did not use it; changed in place.
    """
    for found in shares:
        into, these = [], []
        for weight, gradient in zip(weights, found, strict=True):
            if gradient is None:
                continue
            if weight.grad is None:
                weight.grad = gradient
            else:
                into.append(weight.grad)
                these.append(gradient)
        if into:
            torch._foreach_add_(into, these)


def extra_mib(parameters: int, threads: int) -> float:
    """Memory for the gradients of all shares except the first, in MiB."""
    return (threads - 1) * parameters * 4 / 2**20


def why_no_shares(task: ConViTSSLTask, threads: int) -> str:
    """Why a task's images cannot pass through its trunk in shares; empty if they can.

    Random draws within the trunk would depend on the timing of the threads; drop-path is drawn
    beforehand.

    Args:
        task: ours, with its model.
        threads: that may be used.
    """
    trunk = task.base_model.trunk
    network = getattr(trunk, "base_model", trunk)
    if not isinstance(network, ConViT):
        return "the trunk is not a ConViT"
    config, run = network.config, task.options.run
    learned = sum(p.numel() for p in trunk.parameters() if p.requires_grad)
    found = {
        "optim.accumulate": task.accumulate > 1,
        "run.compile": run.compile,
        "run.fsdp": run.fsdp,
        "run.grad_checkpointing": network.grad_checkpointing,
        "dropout": config.drop_rate > 0 or config.attn_drop_rate > 0,
        "a frozen trunk": not learned,
        "their gradients": extra_mib(learned, threads) > MOST_MIB,
    }
    return next((name for name, hinders in found.items() if hinders), "")
