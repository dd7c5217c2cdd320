"""The options of a run that is ready to start: its experiment's, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convit_ssl.schema import Experiment


@dataclass
class Derived:
    """Numbers of a run that follow from its options, its data and its machines.

    Attributes:
        world_size, processes: training processes in all, and on each machine.
        machine_device: gpu or cpu, as VISSL writes it.
        backend: nccl or gloo.
        workers, pin_memory: of each process's loader.
        batch_per_process: images of a step.
        steps_per_epoch: optimiser steps.
        lr: for the whole batch.
        weight_decay_end: the last one.
        optimizer: its name in Classy Vision's registry.
        num_classes, num_images: of the training images.
        test_model: val is tested, since the method learns labels.
        budget: what a processor allows; None elsewhere.
    """

    world_size: int
    processes: int
    machine_device: str
    backend: str
    workers: int
    pin_memory: bool
    batch_per_process: int
    steps_per_epoch: int
    lr: float
    weight_decay_end: float
    optimizer: str
    num_classes: int
    num_images: int
    test_model: bool
    budget: dict[str, Any] | None = None


@dataclass
class Facts:
    """What the train step and the evaluation ask of the training images; see `Plan.facts`.

    Attributes:
        images: their number.
        native_size: typical (height, width) in pixels.
        grey: all of them are.
    """

    images: int
    native_size: list[int]
    grey: bool


@dataclass(kw_only=True)
class Resolved(Experiment):
    """The options of a run that is ready to start.

    In a training process they are VISSL's ``AttrDict`` of the same fields: attributes are read as
    of this class, which is what type checkers see.
    """

    derived: Derived
    facts: Facts
