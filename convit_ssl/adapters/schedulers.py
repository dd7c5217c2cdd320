"""Warm-up and cosine as a VISSL parameter scheduler, in epochs and stepped every iteration."""

from __future__ import annotations

import copy
import math
from typing import Any

from classy_vision.optim.param_scheduler import (
    ClassyParamScheduler,
    UpdateInterval,
    register_param_scheduler,
)


@register_param_scheduler("convit_ssl_warmup_cosine")
class WarmupCosine(ClassyParamScheduler):  # type: ignore[misc]
    """Linear warm-up, then half a cosine down (or up) to the end value.

    Args:
        base_value: value after the warm-up.
        start_value: value at the first step of the warm-up.
        end_value: value that the last step approaches.
        warmup_epochs: length of the warm-up in epochs.
        num_epochs: length of the whole run in epochs.

    A function of the share of the run that is done alone, so that resuming is exact and another
    number of processes changes nothing. Source: the schedule of DINO's main_dino.py.
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
        self.base_value = base_value
        self.start_value = start_value
        self.end_value = end_value
        self.warmup = min(warmup_epochs / num_epochs, 1.0)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmupCosine:
        """From a section of ``OPTIMIZER.param_schedulers``; VISSL's other keys are not ours."""
        names = ("base_value", "end_value", "num_epochs", "start_value", "warmup_epochs")
        return cls(**{name: config[name] for name in names if name in config})

    def scaled(self, factor: float) -> WarmupCosine:
        """The same schedule with every value times `factor`."""
        other = copy.copy(self)
        other.base_value = self.base_value * factor
        other.start_value = self.start_value * factor
        other.end_value = self.end_value * factor
        return other

    def __call__(self, where: float) -> float:
        """The value at `where`, the share of all steps that is done, in [0, 1)."""
        if where < self.warmup:
            share = where / self.warmup
            return self.start_value + share * (self.base_value - self.start_value)
        share = (where - self.warmup) / max(1.0 - self.warmup, 1e-12)
        cosine = 0.5 * (1.0 + math.cos(math.pi * share))
        return self.end_value + (self.base_value - self.end_value) * cosine
