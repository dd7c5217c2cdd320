"""The teacher: an exponential moving average of the student."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convit_ssl.methods.clip import own_share

_WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


def build_teacher(student: nn.Module) -> nn.Module:
    """A copy of the student in eval mode, without gradients, dropout or drop-path.

    Drop rates are set to zero as well, so a later ``train()`` by a framework
    that walks over all modules does not bring them back.
    """
    student = _unwrapped(student)
    # SyncBatchNorm's groups of processes cannot be copied, and are the same for both.
    groups = [getattr(module, "process_group", None) for module in student.modules()]
    memo = {id(group): group for group in groups}
    teacher = copy.deepcopy(student, memo).requires_grad_(False).eval()
    for module in teacher.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(getattr(module, "drop_prob", None), float):  # timm's DropPath
            module.drop_prob = 0.0  # type: ignore[assignment]
    for parameter in teacher.parameters():
        parameter.grad = None
    return teacher


@torch.no_grad()
def update_teacher(student: nn.Module, teacher: nn.Module, momentum: int | float) -> None:
    """``teacher = momentum * teacher + (1 - momentum) * student``, in a few launches.

    Floating parameters and buffers are averaged, others (counters) copied.

    Raises:
        ValueError: momentum outside 0..1, or the two differ in their tensors.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum={momentum} must lie within 0..1")
    sources = _tensors(student)
    averaged: list[Tensor] = []
    towards: list[Tensor] = []
    for name, target in _tensors(teacher).items():
        source = sources.pop(name, None)
        if source is None or source.shape != target.shape:
            found = "absent" if source is None else f"of shape {tuple(source.shape)}"
            raise ValueError(
                f"teacher tensor {name} {tuple(target.shape)} is {found} in the student; "
                "make the teacher with build_teacher(student)"
            )
        if target.is_floating_point():
            averaged.append(target)
            towards.append(source.to(target))
        else:
            target.copy_(source)
    if sources:
        raise ValueError(f"the teacher lacks {', '.join(sources)} of the student")
    if averaged:
        torch._foreach_lerp_(averaged, towards, 1 - momentum)


def _unwrapped(module: nn.Module) -> nn.Module:
    if isinstance(module, (DistributedDataParallel, nn.DataParallel)):
        return _unwrapped(module.module)
    compiled = getattr(module, "_orig_mod", None)
    return _unwrapped(compiled) if isinstance(compiled, nn.Module) else module


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    inner = _unwrapped(module)
    named: list[Iterable[tuple[str, Tensor]]] = [inner.named_parameters(), inner.named_buffers()]
    return {_plain(name): own_share(tensor) for pairs in named for name, tensor in pairs}


def _plain(name: str) -> str:
    for prefix in _WRAPPER_PREFIXES:
        name = name.replace(f".{prefix}", ".").removeprefix(prefix)
    return name
