"""Mixed precision with ``AMP_TYPE: apex``, VISSL's default.

Broke: ``Apex is not available. Can't use mixed precision``: NVIDIA's apex.amp is deprecated in
    favour of torch.amp and does not build with a current torch.
Since: apex was never on PyPI; torch 1.6 brought torch.cuda.amp
Upstream: vissl/trainer/train_task.py:183
Goes when: VISSL's configurations say ``AMP_TYPE: pytorch``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import wrap


def apply(module: ModuleType) -> None:
    """Run configurations that ask for apex with torch.amp; the configuration stays as it is."""
    if not module.is_apex_available():
        wrap(module.SelfSupervisionTask, "_init_apex_grad_scaler", _with_torch_amp)


def _with_torch_amp(_: Callable[..., Any]) -> Callable[..., Any]:
    from classy_vision.tasks.classification_task import AmpType

    def init_grad_scaler(self: Any) -> None:
        arguments = self.config.MODEL.AMP_PARAMS.get("AMP_ARGS") or {}
        level = arguments.get("opt_level", "O1")
        if level == "O0":
            # apex's name for ordinary float32 training
            self.amp_type = None
            logging.info("apex AMP level O0: training in float32")
            return
        self.amp_type = AmpType.PYTORCH
        self._init_pytorch_grad_scaler()
        logging.info(f"apex is not installed: its AMP level {level} is run as torch.amp autocast")

    return init_grad_scaler
