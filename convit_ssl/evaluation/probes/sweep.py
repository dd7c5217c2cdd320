"""Training of all heads of a sweep: together in one product, or a core for each.

Up to `VERY_MANY_CLASSES` classes all heads take every step together. With more, one step of one
head is enough work for a core and fits into its cache, so the heads of a CPU train one by one,
several at a time and without waiting for each other. Steps that are short because the learning
rate is small are then joined, see `joined_steps`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from convit_ssl.evaluation.probes.heads import VERY_MANY_CLASSES, Head, LinearHeads, train_heads
from convit_ssl.evaluation.probes.one_head import OneHead
from convit_ssl.evaluation.probes.splits import ProbeData, Rows
from convit_ssl.machine import threads_of_one_core
from convit_ssl.models.products import onednn_products

LEAST_EPOCHS = 5  # that joined steps leave at least, so that a head still sees all images
Progress = Callable[[int, int], None]
Key = tuple[int, int]  # of a group of heads: its joined steps, and the place of a single head


@dataclass(frozen=True)
class Training:
    """What the heads of a sweep have in common.

    Attributes:
        rows: of train.
        targets: (N,) classes of all images.
        num_classes: outputs of each head.
        iterations: steps of `batch_size` images.
        least: steps that a head takes at least.
        largest_rate: of the whole grid; no joined step is longer than its steps.
        batch_size: images in a step.
        momentum: of SGD.
        seed: of the order of images.
    """

    rows: Rows
    targets: Rows
    num_classes: int
    iterations: int
    least: int
    largest_rate: float
    batch_size: int
    momentum: float
    seed: int

    def joined(self, head: Head) -> int:
        """How many steps of a head are taken as one."""
        if self.num_classes <= VERY_MANY_CLASSES:
            return 1
        least = max(self.least, LEAST_EPOCHS * len(self.rows) // self.batch_size)
        return joined_steps(head.learning_rate, self.largest_rate, self.iterations, least)


def joined_steps(rate: float, largest: float, iterations: int, least: int) -> int:
    """How many steps of SGD are taken as one, at as many times the learning rate.

    As long as steps are short, weights depend on the sum of the learning rates alone: k steps
    lead to where one step at k times the rate leads (the linear scaling rule, arXiv 1706.02677,
    read backwards). What is noise from the draw of the images grows with the rate; it stays
    within that of the grid's largest rate.

    Args:
        rate: learning rate of a head.
        largest: that a joined step may have.
        iterations: steps before they are joined.
        least: steps that are left.
    """
    return max(1, min(int(largest / rate + 1e-6), iterations // max(least, 1)))


class Sweep:
    """Trained heads.

    Args:
        heads: in the order of all results.
        parts: positions of heads that were trained together, and these.
    """

    def __init__(self, heads: Sequence[Head], parts: Sequence[tuple[list[int], LinearHeads]]):
        self.heads = list(heads)
        self.parts = list(parts)

    def score(
        self, data: ProbeData, rows: Rows, targets: Rows
    ) -> tuple[Float[Tensor, " heads"], Float[Tensor, " heads"]]:
        """Accuracy and mean cross-entropy of each head on some rows."""
        accuracies, losses = (torch.zeros(len(self.heads), dtype=torch.float64) for _ in range(2))
        for places, linear in self.parts:
            accuracies[places], losses[places] = linear.score(data, rows, targets)
        return accuracies, losses


def train_sweep(
    heads: Sequence[Head], data: ProbeData, training: Training, progress: Progress | None = None
) -> Sweep:
    """Train heads from zero.

    Args:
        heads: what each reads, and its learning rate.
        data: the features.
        training: settings.
        progress: called with (steps done, steps) of all heads together.
    """
    one_by_one = (
        training.num_classes > VERY_MANY_CLASSES and data.device.type == "cpu" and data.in_memory
    )
    groups: dict[Key, list[int]] = {}
    for place, head in enumerate(heads):
        key = (training.joined(head), place if one_by_one else 0)
        groups.setdefault(key, []).append(place)
    steps = {key: round(training.iterations / key[0]) for key in groups}
    count = _Count(sum(steps.values()), progress)

    def train(key: Key) -> LinearHeads:
        widths, classes = dict(data.widths()), training.num_classes
        members = [heads[place] for place in groups[key]]
        if one_by_one:
            linear: LinearHeads = OneHead(members[0], widths, classes, data.device)
        else:
            linear = LinearHeads(members, widths, classes, data.device)
        train_heads(
            linear,
            data,
            training.rows,
            training.targets,
            iterations=steps[key],
            batch_size=training.batch_size,
            momentum=training.momentum,
            seed=training.seed,
            longer=training.iterations / steps[key],
            progress=count.reporter(),
        )
        return linear

    # The longest first, so that none is left for one core at the end.
    order = sorted(groups, key=lambda key: -steps[key])
    threads = min(torch.get_num_threads(), len(order)) if one_by_one else 1
    with onednn_products(data.device.type == "cpu"):
        if threads == 1:
            trained = [train(key) for key in order]
        else:
            trained = _in_threads(train, order, threads, count)
    return Sweep(heads, [(groups[key], linear) for key, linear in zip(order, trained, strict=True)])


def _in_threads(
    train: Callable[[Key], LinearHeads], order: Sequence[Key], threads: int, count: _Count
) -> list[LinearHeads]:
    with threads_of_one_core(threads) as pool:
        try:
            return list(pool.map(train, order))
        except BaseException:  # Ctrl-C, too: those that still train end with their next report
            count.stopped = True
            pool.shutdown(cancel_futures=True)
            raise


class _Stopped(Exception):
    """Training was given up."""


class _Count:
    """Adds up the steps of heads that train at the same time."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self.progress = total, 0, progress
        self.stopped = False
        self._lock = threading.Lock()

    def reporter(self) -> Progress:
        """Takes (steps done, steps) of one group."""
        before = 0

        def report(done: int, _: int) -> None:
            nonlocal before
            if self.stopped:
                raise _Stopped
            with self._lock:
                self.done += done - before
                before = done
                if self.progress is not None:
                    self.progress(self.done, self.total)

        return report
