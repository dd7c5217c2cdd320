"""SGD with LARC, as VISSL's SimCLR and SwAV configurations train (``use_larc: True``).

Broke: ``Apex must be available to use LARC``: apex does not build with a current torch.
Since: apex was never on PyPI
Upstream: vissl/trainer/train_task.py:362, classy_vision/optim/sgd.py:44
Goes when: VISSL takes LARC from a package that is maintained.

timm's Lars is the same update, trust_coefficient |w| / (|g| + weight_decay |w| + eps), applied
to every parameter (``always_adapt``), with SGD's momentum and state after it. The one
difference: where the gradient is exactly zero apex skips weight decay and timm does not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import replace, wrap


def apply(module: ModuleType) -> None:
    """Build timm's Lars if apex's LARC is requested but missing."""
    if importlib.util.find_spec("apex") is None:
        if module.__name__ == "classy_vision.optim.sgd":
            wrap(module.SGD, "prepare", _with_timm)
        else:
            replace(module.SelfSupervisionTask, "_build_optimizer", _build_optimizer)


def _with_timm(prepare: Callable[..., Any]) -> Callable[..., Any]:
    def prepare_sgd(self: Any, param_groups: Any) -> None:
        if not self._use_larc:
            prepare(self, param_groups)
            return
        from timm.optim.lars import Lars

        self.optimizer = Lars(
            param_groups,
            lr=self._lr,
            momentum=self._momentum,
            weight_decay=self._weight_decay,
            nesterov=self._nesterov,
            trust_coeff=self._larc_config["trust_coefficient"],
            eps=self._larc_config["eps"],
            trust_clip=self._larc_config["clip"],
            always_adapt=True,
        )

    return prepare_sgd


def _build_optimizer(self: Any) -> Any:
    """Upstream's method without its assertion that apex is installed."""
    from classy_vision.optim import build_optimizer

    return build_optimizer(self.config["OPTIMIZER"])
