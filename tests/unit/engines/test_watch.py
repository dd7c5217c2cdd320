"""Looks at the features: what keeps one from ending."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from convit_ssl.engines import watch
from convit_ssl.engines.watch import Watch

IMAGES = [(torch.full((3, 2, 2), float(i)), 0, i) for i in range(watch.LONGEST_BATCH + 3)]


def looking(side: int) -> Watch:
    options = SimpleNamespace(
        crops=SimpleNamespace(global_size=side),
        derived=SimpleNamespace(workers=1),
        run=SimpleNamespace(timeout_minutes=1 / 15),  # of which half: 2 s
    )
    return Watch(options, torch.device("cpu"), contextlib.nullcontext)


def sleep_for_ever(worker: int) -> None:
    time.sleep(1000)


def test_a_worker_that_never_answers_does_not_hold_up_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "shield_worker", sleep_for_ever)
    look = looking(watch.SMALLEST_FOR_WORKERS)
    with caplog.at_level(logging.WARNING):
        features = look._own_features(nn.Flatten(), Subset(IMAGES, range(len(IMAGES))))
    assert features[:, 0].tolist() == list(range(len(IMAGES)))
    assert look.workers_hung
    assert "did not answer within 2 s" in caplog.text


def test_a_worker_that_fails_is_an_error() -> None:
    look = looking(watch.SMALLEST_FOR_WORKERS)
    with pytest.raises(IndexError) as raised:
        look._own_features(nn.Flatten(), Subset(IMAGES, [len(IMAGES)]))
    assert not look.workers_hung
    # While the error is still held. A worker left behind would keep the process from ending.
    assert raised.tb and not multiprocessing.active_children()
