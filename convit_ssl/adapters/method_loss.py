"""What every loss of a method is to our train step, and a loss with a momentum teacher.

A method's teacher is part of its loss, as in VISSL, so that the checkpoint's ``loss`` entry
holds it (``teacher.trunk.*``, ``teacher.heads.*``) with the rest of the method's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from classy_vision.losses import ClassyLoss
from torch import Tensor, nn

from convit_ssl.errors import UserError
from convit_ssl.methods import CosineSchedule, build_teacher, update_teacher


@dataclass(frozen=True)
class Progress:
    """Where training is: optimiser steps done, and steps in an epoch."""

    step: int
    steps_per_epoch: int

    @property
    def epoch(self) -> float:
        """Epochs done, with fractions."""
        return self.step / self.steps_per_epoch


class MethodLoss(ClassyLoss):  # type: ignore[misc]
    """A loss with the calls that our train step makes around VISSL's.

    Attributes:
        teacher: the momentum copy of the student, None where the method has none.
        stats: detached figures of the last step, for the log.
        parts: in how many parts a teacher sees a batch, as the student does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.teacher: nn.Module | None = None
        self.stats: dict[str, Tensor | float] = {}
        self.parts = 1

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MethodLoss:
        """From a section of ``LOSS``; every key but the name is an argument.

        Raises:
            UserError: an argument out of its range.
        """
        arguments = {key: value for key, value in config.items() if key != "name"}
        try:
            return cls(**arguments)
        except ValueError as error:
            raise UserError(f"method: {error}") from None

    def attach(self, student: nn.Module) -> None:
        """See the student once it is built, before a checkpoint is loaded."""

    def observe(self, inputs: Any, progress: Progress) -> None:
        """See the step's images before the loss is computed."""

    def on_gradients(self, student: nn.Module, progress: Progress) -> None:
        """Change gradients before the optimiser's step."""

    def on_update(self, student: nn.Module, progress: Progress) -> None:
        """Follow the student after the optimiser's step."""


class TeacherLoss(MethodLoss):
    """A method with a momentum teacher, whose momentum rises by a cosine over the run."""

    def __init__(self, momentum: float, momentum_end: float, epochs: float) -> None:
        super().__init__()
        self.momentum = CosineSchedule(momentum, momentum_end, epochs)

    def attach(self, student: nn.Module) -> None:
        """Copy the student."""
        self.teacher = build_teacher(student)
        self.train(self.training)

    def on_update(self, student: nn.Module, progress: Progress) -> None:
        """Move the teacher towards the student."""
        assert self.teacher is not None
        momentum = self.momentum.value(progress.step, progress.steps_per_epoch)
        self.stats["momentum"] = momentum
        update_teacher(student, self.teacher, momentum)

    def train(self, mode: bool = True) -> TeacherLoss:
        """The teacher stays in eval mode, but for batch normalisation in its head.

        That uses the statistics of the batch, as published: running ones lag behind a student
        that changes quickly, and a teacher with wrong ones says the same of every image.
        """
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
            for module in self.teacher.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train(mode)
        return self
