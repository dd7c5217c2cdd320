"""DeepCluster v2 on the CPU.

Broke: its memory bank is filled and clustered through ``.cuda()`` calls: ``Torch not compiled
    with CUDA enabled``.
Since: always
Upstream: vissl/losses/deepclusterv2_loss.py:118
Goes when: the loss uses the device of its own buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import wrap


def apply(module: ModuleType) -> None:
    """Keep tensors on the CPU while a loss on the CPU fills its memory bank."""
    wrap(module.DeepClusterV2Loss, "init_memory", _stay_on_cpu)
    wrap(module.DeepClusterV2Loss, "cluster_memory", _stay_on_cpu)


def _stay_on_cpu(method: Callable[..., Any]) -> Callable[..., Any]:
    def on_cpu(self: Any, *args: Any) -> Any:
        if self.local_memory_index.is_cuda:
            return method(self, *args)
        import torch

        cuda = torch.Tensor.cuda
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
        try:
            return method(self, *args)
        finally:
            torch.Tensor.cuda = cuda  # type: ignore[method-assign]

    return on_cpu
