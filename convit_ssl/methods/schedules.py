"""Schedules as pure functions of the step, given in epochs.

A value depends on ``(step, steps_per_epoch)`` alone. Nothing is stored, so a
resumed run goes on exactly, and one resumed on another number of processes,
where an epoch has other steps, goes on at the same epoch.
"""

import math
from dataclasses import dataclass, replace

from convit_ssl.errors import UserError


@dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up to ``base``, then half a cosine to ``final``.

    Serves the learning rate (warm-up, decay), weight decay and momentum (rise
    without warm-up) and, with ``final=base``, the teacher temperature (warm-up,
    then constant).

    Args:
        base: value after the warm-up.
        final: value towards the last step.
        epochs: length of the run, in epochs.
        warmup_epochs: length of the warm-up, in epochs, within ``epochs``.
        warmup_start: value at step 0 when there is a warm-up.

    Raises:
        UserError: no epochs, or a warm-up longer than the run.

    Source: github.com/facebookresearch/dino, utils.py, cosine_scheduler.
    """

    base: int | float
    final: int | float
    epochs: int | float
    warmup_epochs: int | float = 0.0
    warmup_start: int | float = 0.0

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise UserError(f"epochs={self.epochs}: a schedule needs more than 0 epochs")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UserError(
                f"warmup_epochs={self.warmup_epochs} must lie within 0..epochs={self.epochs}: "
                "shorten the warm-up or train longer"
            )

    def value(self, step: int, steps_per_epoch: int) -> float:
        """Value at a global step (0-based); past the last step it stays at ``final``.

        Raises:
            ValueError: a negative step or no steps in an epoch.
        """
        if step < 0 or steps_per_epoch < 1:
            raise ValueError(f"step={step}, steps_per_epoch={steps_per_epoch}: need >= 0 and >= 1")
        warmup = round(self.warmup_epochs * steps_per_epoch)
        total = max(round(self.epochs * steps_per_epoch), 1)
        if step < warmup:
            return self._rising(step / max(warmup - 1, 1))  # its last step is at ``base``
        if step >= total:
            return self.final
        return self._falling((step - warmup) / (total - warmup))

    def at(self, epoch: int | float) -> float:
        """Value after ``epoch`` epochs, with fractions, in the limit of many steps."""
        if epoch < self.warmup_epochs:
            return self._rising(epoch / self.warmup_epochs)
        if epoch >= self.epochs:
            return self.final
        return self._falling((epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs))

    def scaled(self, factor: float) -> "CosineSchedule":
        """The same schedule with every value times ``factor``."""
        return replace(
            self,
            base=self.base * factor,
            final=self.final * factor,
            warmup_start=self.warmup_start * factor,
        )

    def _rising(self, share: float) -> float:
        return self.warmup_start + share * (self.base - self.warmup_start)

    def _falling(self, share: float) -> float:
        return self.final + 0.5 * (self.base - self.final) * (1 + math.cos(math.pi * share))


def constant(value: int | float) -> CosineSchedule:
    """A schedule that stays at ``value``."""
    return CosineSchedule(base=value, final=value, epochs=1)
