"""By which momentum a teacher follows its student, and when."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convit_ssl.methods import Progress, Run, TeacherMethod, TeacherOptions
from convit_ssl.methods.moco_v3 import MoCoV3, MoCoV3Options

STEPS, EPOCHS = 5, 2  # steps of an epoch


def moved(loss: TeacherMethod[Any], step: int) -> float:
    """The momentum by which a step's update moves the teacher, read off the weights."""
    student = nn.Linear(1, 1, bias=False)
    loss.teacher = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        student.weight.fill_(0.0)
        loss.teacher.weight.fill_(1.0)
    loss.on_update(student, Progress(step, STEPS))
    weight = loss.teacher.weight
    assert isinstance(weight, Tensor)
    return float(weight.detach())


def published(step: int) -> float:
    """facebookresearch/moco-v3, main_moco.py, lines 431-434, at 0.9."""
    return 1.0 - 0.5 * (1.0 + math.cos(math.pi * step / (STEPS * EPOCHS))) * (1.0 - 0.9)


@pytest.mark.parametrize("step", range(STEPS * EPOCHS))
def test_moco_moves_its_encoder_by_the_momentum_of_the_step_that_uses_it(step: int) -> None:
    """The release moves it before a step's keys: after the update of the step before."""
    loss = MoCoV3(MoCoV3Options(momentum=0.9), Run(epochs=EPOCHS))
    assert moved(loss, step) == pytest.approx(published(step + 1), abs=1e-7)


@pytest.mark.parametrize("step", range(STEPS * EPOCHS))
def test_dino_moves_its_teacher_by_the_momentum_of_the_step(step: int) -> None:
    """facebookresearch/dino, main_dino.py, lines 346-350: after the update, for the next step."""
    teacher = TeacherMethod(TeacherOptions(momentum=0.9), Run(epochs=EPOCHS))
    assert moved(teacher, step) == pytest.approx(published(step), abs=1e-7)
