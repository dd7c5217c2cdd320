"""Is the representation collapsing? Cheap figures, and one message that names it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Below these a run is called collapsed. Healthy runs lie far above: see each rule's text.
_STUCK_LOSS = 0.005  # relative distance of the loss from ln(out_dim)
_UNIFORM_TEACHER = 0.99  # share of ln(out_dim) that the teacher's entropy reaches
_ONE_OUTPUT_TEACHER = 0.01  # share of ln(out_dim) that it falls to
_SMALLEST_RANK = 2.0
_SMALLEST_STD = 0.02


@torch.no_grad()
def effective_rank(features: Float[Tensor, "samples dim"]) -> float:
    """RankMe: exponential of the entropy of the singular values; 1 is full collapse.

    At most ``min(samples, dim)``; take at least as many samples as dimensions.

    Source: arXiv:2210.02885, equation 1.
    """
    values = torch.linalg.svdvals(features.float())
    total = values.sum()
    if not bool(total > 0):
        return 1.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


@torch.no_grad()
def feature_std(features: Float[Tensor, "samples dim"]) -> float:
    """Standard deviation of unit-length features, times sqrt(dim).

    About 1 when directions are spread evenly whatever the width, 0 when all
    samples coincide. Source: arXiv:2011.10566, section 4.1.
    """
    unit = F.normalize(features.float(), dim=-1)
    return float(unit.std(dim=0, correction=0).mean() * math.sqrt(features.shape[1]))


def diagnose(
    loss: int | float,
    out_dim: int | None = None,
    rank: int | float | None = None,
    std: int | float | None = None,
    teacher_entropy: int | float | None = None,
    epoch: int | float | None = None,
    grace_epochs: int | float = 3.0,
) -> str | None:
    """Says in one message what has collapsed and what to change; None if all is well.

    Args:
        loss: mean of the latest epoch.
        out_dim: outputs of a DINO-like head; None for contrastive methods.
        rank: :func:`effective_rank` of held-out features.
        std: :func:`feature_std` of the same.
        teacher_entropy: in nats, of DINO's teacher.
        epoch: epochs completed; the loss and the teacher's entropy start near
            ln(out_dim), so they are judged after ``grace_epochs`` only.
        grace_epochs: see ``epoch``; take at least the learning rate's warm-up.
    """
    if not math.isfinite(loss):
        return (
            f"The loss is {loss}: lower the learning rate, clip gradients (clip_grad=3.0) "
            "or train in bf16 rather than fp16."
        )
    settled = epoch is None or epoch >= grace_epochs
    for found in (
        _diagnose_outputs(loss, out_dim, teacher_entropy) if settled else None,
        _diagnose_features(rank, std),
    ):
        if found:
            return found
    return None


def _diagnose_outputs(
    loss: int | float, out_dim: int | None, teacher_entropy: int | float | None
) -> str | None:
    if out_dim is None or out_dim < 2:
        return None
    uniform = math.log(out_dim)
    entropy = math.nan if teacher_entropy is None else teacher_entropy
    if entropy < _ONE_OUTPUT_TEACHER * uniform and loss < 2 * _ONE_OUTPUT_TEACHER * uniform:
        return (
            f"Collapsed to one output: loss {loss:.4f} and teacher entropy {entropy:.4f} are "
            "almost 0, so the teacher answers the same for every image. Raise the teacher "
            "temperature (0.04), lower center_momentum (0.9), or lower the learning rate."
        )
    if abs(loss - uniform) < _STUCK_LOSS * uniform or entropy > _UNIFORM_TEACHER * uniform:
        seen = "" if teacher_entropy is None else f", teacher entropy {entropy:.4f}"
        return (
            f"Collapsed to uniform outputs: loss {loss:.4f}{seen}, and ln(out_dim={out_dim}) is "
            f"{uniform:.4f}. Lower the teacher temperature (0.02) or lengthen its warm-up, use "
            "fewer outputs (out_dim=1024 under 20,000 images), freeze the last layer for an "
            "epoch, or lower the learning rate."
        )
    return None


def _diagnose_features(rank: int | float | None, std: int | float | None) -> str | None:
    advice = (
        "Lower the learning rate or lengthen its warm-up, use a larger batch or stronger crops, "
        "and check that the images differ (subset, transforms)."
    )
    if rank is not None and not rank >= _SMALLEST_RANK:
        return (
            f"Features have collapsed: effective rank {rank:.2f}, so they vary along hardly more "
            f"than one direction. {advice}"
        )
    if std is not None and not std >= _SMALLEST_STD:
        return (
            f"Features have collapsed: standard deviation {std:.4f} of unit features, where 1 "
            f"is evenly spread and 0 is one point for every image. {advice}"
        )
    return None
