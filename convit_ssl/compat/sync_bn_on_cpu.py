"""Momentum encoders with batch norm on the CPU.

Broke: the hooks of SwAV with momentum and of DINO convert batch norm to SyncBatchNorm on any
    device, which fails with ``SyncBatchNorm layers only work with GPU modules``.
Since: always
Upstream: vissl/hooks/swav_momentum_hooks.py:69, vissl/hooks/dino_hooks.py:67
Goes when: the hooks check the device, as vissl/trainer/train_task.py:462 does.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import wrap

BUILDERS = {
    "vissl.hooks.swav_momentum_hooks": ("SwAVMomentumHook", "_build_momentum_network"),
    "vissl.hooks.dino_hooks": ("DINOHook", "_build_momentum_network"),
}


def apply(module: ModuleType) -> None:
    """Keep ordinary batch norm if the hook runs on the CPU."""
    hook, method = BUILDERS[module.__name__]
    wrap(getattr(module, hook), method, _keep_batch_norm)


def _keep_batch_norm(build: Callable[..., Any]) -> Callable[..., Any]:
    def build_momentum_network(self: Any, task: Any) -> Any:
        if task.device.type != "cpu":
            return build(self, task)
        from torch.nn import SyncBatchNorm

        convert = vars(SyncBatchNorm)["convert_sync_batchnorm"]
        SyncBatchNorm.convert_sync_batchnorm = classmethod(  # type: ignore[assignment,method-assign]
            lambda cls, module, process_group=None: module
        )
        try:
            return build(self, task)
        finally:
            SyncBatchNorm.convert_sync_batchnorm = convert  # type: ignore[method-assign]

    return build_momentum_network
