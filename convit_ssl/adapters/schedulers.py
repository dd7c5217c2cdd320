"""Warm-up and cosine as a VISSL parameter scheduler, in epochs and stepped every iteration."""

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
    """The share of a run that is done, as VISSL's schedulers take it, with the step it is.

    Args:
        step: optimiser steps done.
        steps: of the whole run.
        steps_per_epoch: of one epoch.
    """

    step: int
    steps_per_epoch: int

    def __new__(cls, step: int, steps: int, steps_per_epoch: int) -> Position:
        """The float ``step / steps`` that knows both."""
        self = super().__new__(cls, step / steps)
        self.step, self.steps_per_epoch = step, steps_per_epoch
        return self


@register_param_scheduler("convit_ssl_warmup_cosine")
class WarmupCosine(ClassyParamScheduler):  # type: ignore[misc]
    """`CosineSchedule` for VISSL: linear warm-up, then half a cosine to the end value.

    Our train step gives a `Position`, and every step has the value of DINO's ``cosine_scheduler``.
    VISSL's own steps give a share of the run alone, and get the value in the limit of many steps.

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
        """From a section of ``OPTIMIZER.param_schedulers``; VISSL's other keys are not ours."""
        names = ("base_value", "end_value", "num_epochs", "start_value", "warmup_epochs")
        return cls(**{name: config[name] for name in names if name in config})

    def scaled(self, factor: float) -> WarmupCosine:
        """The same schedule with every value times `factor`."""
        other = copy.copy(self)
        other.schedule = self.schedule.scaled(factor)
        return other

    def __call__(self, where: float) -> float:
        """The value at `where`, the share of all steps that is done, in [0, 1)."""
        if isinstance(where, Position):
            return self.schedule.value(where.step, where.steps_per_epoch)
        return self.schedule.at(where * self.schedule.epochs)
