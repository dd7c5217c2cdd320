"""FSDP2: weights, gradients, optimiser state and teacher are sharded over processes.

Each process builds and loads the whole model, then `shard_models` keeps only its shard. The units
that are gathered together are the MLP of each block, the rest of the trunk (its GPSA layers are
folded together, so their weights are needed at once), and each head. Checkpoints contain whole
tensors, like those of any other run, so a run can resume with another number of processes or
without FSDP.

Source: Zhao et al. 2023 (arXiv:2304.11277); torch.distributed.fsdp.fully_shard.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from convit_ssl.models import ConViT


def shard_models(
    model: nn.Module, teacher: nn.Module | None, device: str, gradients: str
) -> dict[Tensor, nn.Parameter]:
    """Keep only this process's shard of the weights. A collective call.

    Args:
        model: VISSL's, with ``trunk`` and ``heads``, the same in all processes.
        teacher: its momentum copy, if the method has one.
        device: cpu or cuda.
        gradients: data type of the exchange, fp32 or bf16.

    Returns:
        The shard that replaces each parameter of the model.
    """
    # The trunk gives a slice, the class token; nothing writes to it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    before = dict(model.named_parameters())
    policy = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16 if gradients == "bf16" else None)
    _shard(model, mesh, policy)
    after = dict(model.named_parameters())
    if teacher is not None:
        _shard(teacher, mesh, policy)
        for head in teacher.heads:  # type: ignore[union-attr]
            if hasattr(head, "project"):  # MoCo v3's keys do without the predictor
                register_fsdp_forward_method(head, "project")
    return {parameter: after[name] for name, parameter in before.items()}


def shard_state(
    state: dict[Tensor, Any], shares: dict[Tensor, nn.Parameter]
) -> dict[nn.Parameter, Any]:
    """The optimiser state of whole parameters, sharded like these."""
    return {
        shares[parameter]: {key: _alike(value, shares[parameter]) for key, value in entry.items()}
        for parameter, entry in state.items()
    }


def whole(state: Any, everywhere: bool = False) -> Any:
    """A state with whole tensors instead of shards. A collective call.

    Args:
        state: tensors in nested dictionaries and lists.
        everywhere: return it in all processes, on their devices; otherwise only in the first,
            on the CPU, and the others get None for sharded tensors.
    """
    if isinstance(state, DTensor):
        tensor = state.full_tensor()
        if everywhere:
            return tensor
        # One at a time on the device: all of them, with the optimiser's, may not fit there.
        return tensor.cpu() if torch.distributed.get_rank() == 0 else None
    if isinstance(state, dict):
        return {key: whole(child, everywhere) for key, child in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(whole(child, everywhere) for child in state)
    return state


def whole_trunk(trunk: ConViT) -> ConViT:
    """A copy of a sharded trunk that this process can use alone. A collective call."""
    device = next(trunk.parameters()).device
    copy = ConViT(trunk.config).to(device)
    state = whole(trunk.state_dict(), everywhere=True)
    state.pop("mask_token", None)  # for training alone
    copy.load_state_dict(state)
    return copy.requires_grad_(False).eval()


@contextlib.contextmanager
def unsynchronised(model: nn.Module) -> Iterator[None]:
    """Do not exchange gradients in the block, like ``no_sync`` of DistributedDataParallel."""
    roots = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for part in roots:
        part.set_requires_gradient_sync(False, recurse=False)
    try:
        yield
    finally:
        for part in roots:
            part.set_requires_gradient_sync(True, recurse=False)


def _shard(model: Any, mesh: Any, policy: MixedPrecisionPolicy) -> None:
    options = {"mesh": mesh, "mp_policy": policy, "reshard_after_forward": True}
    for block in getattr(model.trunk, "blocks", ()):
        fully_shard(block.mlp, **options)
    for part in (model.trunk, *model.heads):
        if any(True for _ in part.parameters()):
            fully_shard(part, **options)


def _alike(value: Any, share: Any) -> Any:
    if not isinstance(value, Tensor) or value.shape != share.shape:
        return value
    return distribute_tensor(value, share.device_mesh, share.placements, src_data_rank=None)
