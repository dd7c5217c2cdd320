"""How often val is tested while labels are learned, and what that costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from convit_ssl.methods import get_method, test_every

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


SHARE = 0.1  # of the time of training that tests may take


def passes(method: str) -> int:
    """Forward passes that an image of train costs: a backward pass counts for two."""
    return 1 if get_method(method).frozen_trunk else 3


def test_interval(train: int, val: int, method: str) -> int:
    """Epochs between two tests, so that they take up to `SHARE` of the time of training.

    Args:
        train: images of an epoch.
        val: images of a test, each a forward pass.
        method: one that learns from labels.
    """
    return max(1, math.ceil(val / (train * passes(method)) / SHARE))


def test_seconds(task: ConViTSSLTask, step_seconds: float) -> tuple[int, float]:
    """Tests that are left of a run, and about how many seconds all of them will take.

    Args:
        task: that trains.
        step_seconds: of one optimiser step.
    """
    images = getattr(task.inputs, "datasets", {}).get("TEST")
    if images is None:
        return 0, 0.0
    epochs = int(task.options.optim.epochs)
    every = test_every(task.options.method)
    done = task.iteration // max(task.steps_per_epoch, 1)
    tests = sum(e % every == 0 or e == epochs for e in range(done + 1, epochs + 1))
    image_seconds = step_seconds / task.options.optim.batch_size / passes(task.options.method.name)
    return tests, tests * len(images) * image_seconds
