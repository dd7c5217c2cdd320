"""Warm-up and cosine as a VISSL parameter scheduler: in epochs, updated every iteration."""

from __future__ import annotations

import copy
from typing import Any

from classy_vision.optim.param_scheduler import (
    ClassyParamScheduler,
    UpdateInterval,
    register_param_scheduler,
)

from convit_ssl.methods import CosineSchedule


class Position(float):
    """Progress of a run as a fraction, for VISSL's schedulers, together with its step.

    Args:
        step: number of optimiser steps so far.
        steps: in the whole run.
        steps_per_epoch: in one epoch.
    """

    step: int
    steps_per_epoch: int

    def __new__(cls, step: int, steps: int, steps_per_epoch: int) -> Position:
        """The float ``step / steps`` that knows both."""
        self = super().__new__(cls, step / steps)
        self.step, self.steps_per_epoch = step, steps_per_epoch
        return self


@register_param_scheduler("convit_ssl_warmup_cosine")
class WarmupCosine(ClassyParamScheduler):
    """`CosineSchedule` for VISSL: linear warm-up, then half a cosine to the end value.

    Our train step passes a `Position` and gets exactly the values of DINO's ``cosine_scheduler``.
    VISSL's own train steps pass only a fraction and get the limit for many steps.

    Args:
        base_value: value after the warm-up.
        start_value: value at the first step of the warm-up.
        end_value: value that the last step approaches.
        warmup_epochs: length of the warm-up in epochs.
        num_epochs: length of the whole run in epochs.
    """

    def __init__(
        self,
        base_value: float,
        end_value: float,
        num_epochs: float,
        start_value: float = 0.0,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(update_interval=UpdateInterval.STEP)
        warmup = min(warmup_epochs, num_epochs)
        self.schedule = CosineSchedule(base_value, end_value, num_epochs, warmup, start_value)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmupCosine:
        """Build from a section of ``OPTIMIZER.param_schedulers``; other keys are ignored."""
        names = ("base_value", "end_value", "num_epochs", "start_value", "warmup_epochs")
        return cls(**{name: config[name] for name in names if name in config})

    def scaled(self, factor: float) -> WarmupCosine:
        """The same schedule with every value times `factor`."""
        other = copy.copy(self)
        other.schedule = self.schedule.scaled(factor)
        return other

    def __call__(self, where: float) -> float:
        """The value at `where`, the fraction of steps done, in [0, 1)."""
        if isinstance(where, Position):
            return self.schedule.value(where.step, where.steps_per_epoch)
        return self.schedule.at(where * self.schedule.epochs)
