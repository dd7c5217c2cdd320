"""Cross-entropy between crops: the pair loop of DINO and SwAV, fused.

The published losses run over all pairs (target crop i, student crop v != i) and
take a log-softmax of v for each. The sum over i only needs the summed targets,
so one log-sum-exp and one dot product per student crop give the same value, and
the exponentials already at hand give the gradient, which is kept in place of
the activations.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from convit_ssl.methods.gather import full_precision


def split_crops(packed: Tensor | Sequence[Tensor], count: int, what: str) -> list[Tensor]:
    """Views of each crop's rows, from one crop-major tensor or from a list.

    Raises:
        ValueError: the rows don't divide into ``count`` crops, or the list has
            another length.
    """
    if not isinstance(packed, Tensor):
        if len(packed) != count:
            raise ValueError(f"{what}: got {len(packed)} crops, expected {count}")
        return list(packed)
    if packed.shape[0] % count:
        raise ValueError(
            f"{what}: {packed.shape[0]} rows do not divide into {count} crops; "
            "pass a list with one tensor per crop when their batches differ"
        )
    size = packed.shape[0] // count
    return list(torch.split(packed, size)) if size else [packed] * count


def cross_view_entropy(
    students: Float[Tensor, "rows out_dim"] | Sequence[Float[Tensor, "_ out_dim"]],
    targets: Sequence[Float[Tensor, "_ out_dim"]],
    temperature: int | float,
    num_crops: int,
) -> Float[Tensor, ""]:
    """Mean over pairs (i, v), v != i, of ``-sum(targets[i] * log_softmax(students[v] / T))``.

    Args:
        students: logits of all crops, crop-major in one tensor or one tensor per
            crop; fp16 and bf16 are computed in fp32.
        targets: probabilities of the first ``len(targets)`` crops; constants.
        temperature: T, of the student.
        num_crops: crops in ``students``.

    Crops may hold different numbers of images: row r is image r in each, a pair
    is averaged over the images that both hold, and a pair without any is left
    out of the mean.

    Source: arXiv:2104.14294, algorithm 1; arXiv:2006.09882, equation 6.
    """
    tensors = (students,) if isinstance(students, Tensor) else tuple(students)
    split_crops(students, num_crops, "student")
    constants = tuple(target.detach() for target in targets)
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    # Autocast would take the dot products to half precision.
    with torch.autocast(tensors[0].device.type, enabled=False):
        loss = _CrossViewEntropy.apply(wanted, temperature, num_crops, constants, *tensors)
    return cast(Tensor, loss)


class _CrossViewEntropy(torch.autograd.Function):
    """Forms the gradient in forward: saved memory is one tensor like the logits."""

    @staticmethod
    def forward(
        ctx: Any,
        wanted: bool,
        temperature: int | float,
        num_crops: int,
        targets: tuple[Tensor, ...],
        *students: Tensor,
    ) -> Tensor:
        gradients = [_gradient_like(student) for student in students] if wanted else []
        packed = len(students) == 1
        logits = split_crops(students[0] if packed else students, num_crops, "student")
        slots: list[Tensor] | list[None] = [None] * num_crops
        if wanted:
            slots = split_crops(gradients[0] if packed else gradients, num_crops, "student")
        equal = len({crop.shape[0] for crop in (*logits, *targets)}) == 1
        accumulate = _accumulate_equal if equal else _accumulate_pairs
        loss = accumulate(logits, targets, temperature, slots)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [student.dtype for student in students]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        # The usual gradient of 1 needs no second tensor; asking a GPU would synchronise.
        if not (grad_loss.device.type == "cpu" and grad_loss.item() == 1):
            saved = [gradient * grad_loss for gradient in saved]
        cast_back = [g.to(dtype) for g, dtype in zip(saved, ctx.dtypes, strict=True)]
        return (None, None, None, None, *cast_back)


def _gradient_like(student: Tensor) -> Tensor:
    # fp16 would lose the small entries before the loss scale reaches them.
    dtype = torch.float32 if student.dtype == torch.float16 else student.dtype
    return torch.empty_like(student, dtype=dtype, memory_format=torch.contiguous_format)


def _accumulate_equal(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    temperature: int | float,
    slots: Sequence[Tensor | None],
) -> Tensor:
    rows, count = logits[0].shape[0], len(targets)
    pairs = count * len(logits) - min(count, len(logits))
    if rows == 0:
        return _zero_loss(logits[0])
    summed = targets[0] if count == 1 else sum(targets[1:], start=targets[0])
    loss = _zero_loss(logits[0])
    for index, (crop, slot) in enumerate(zip(logits, slots, strict=True)):
        if index >= count:
            target, mass = summed, count
        elif count == 2:
            target, mass = targets[1 - index], 1
        else:
            target, mass = summed - targets[index], count - 1
        loss += _crop_entropy(crop, target, mass, temperature, 1 / (pairs * rows), slot)
    return loss


def _accumulate_pairs(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    temperature: int | float,
    slots: Sequence[Tensor | None],
) -> Tensor:
    common = {
        (i, v): min(targets[i].shape[0], logits[v].shape[0])
        for i, v in product(range(len(targets)), range(len(logits)))
        if i != v
    }
    pairs = {pair: rows for pair, rows in common.items() if rows}
    loss = _zero_loss(logits[0])
    for slot in slots:
        if slot is not None:
            slot.zero_()
    for (i, v), rows in pairs.items():
        slot = slots[v]
        part = torch.empty_like(slot[:rows]) if slot is not None else None
        weight = 1 / (len(pairs) * rows)
        loss += _crop_entropy(logits[v][:rows], targets[i][:rows], 1, temperature, weight, part)
        if slot is not None and part is not None:
            slot[:rows] += part
    return loss


def _zero_loss(like: Tensor) -> Tensor:
    return full_precision(like.new_zeros(()))


def _crop_entropy(
    logits: Tensor,
    target: Tensor,
    mass: int,
    temperature: int | float,
    weight: float,
    gradient: Tensor | None,
) -> Tensor:
    """Weighted entropy of one crop; writes its gradient into ``gradient`` (B, K).

    ``mass`` is what a row of ``target`` sums to.
    """
    shifted = _divided(logits, temperature)
    shifted -= shifted.amax(dim=-1, keepdim=True)
    # vecdot adds up pairwise: a flat dot over 65,536 outputs loses four digits.
    agreement = torch.linalg.vecdot(shifted, target).sum()
    exponentials = shifted.exp_()
    normalizer = exponentials.sum(dim=-1, keepdim=True)
    entropy: Tensor = mass * normalizer.log().sum() - agreement
    if gradient is not None:
        scale = weight / temperature
        exponentials.mul_(mass * scale / normalizer)
        torch.sub(exponentials, target, alpha=scale, out=gradient)
    return entropy * weight


def _divided(logits: Tensor, temperature: int | float) -> Tensor:
    """A new tensor in full precision."""
    wide = full_precision(logits)
    return wide / temperature if wide is logits else wide.div_(temperature)
