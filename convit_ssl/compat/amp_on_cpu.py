"""Configurations with mixed precision on a machine without a GPU.

Broke: ``USE_AMP: True`` with ``MACHINE.DEVICE: cpu`` stops on an assertion, so such a
    configuration cannot be tried on a CPU unchanged.
Since: always
Upstream: vissl/trainer/train_task.py:167
Goes when: VISSL turns mixed precision off by itself where there is no GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import wrap


def apply(module: ModuleType) -> None:
    """Train in float32 on the CPU, and say so."""
    wrap(module.SelfSupervisionTask, "set_amp_args", _off_on_cpu)


def _off_on_cpu(set_amp_args: Callable[..., Any]) -> Callable[..., Any]:
    def set_args(self: Any) -> None:
        if self.config.MODEL.AMP_PARAMS.USE_AMP and self.device.type == "cpu":
            self.amp_args, self.amp_type = None, None
            logging.warning("No mixed precision on the CPU: training in float32")
            return
        set_amp_args(self)

    return set_args
