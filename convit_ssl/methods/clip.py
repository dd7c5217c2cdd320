"""Gradient clipping and freezing without waiting for the device."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

_EPSILON = 1e-6  # of DINO's and PyTorch's clipping


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], max_norm: int | float) -> Float[Tensor, ""]:
    """Scales each parameter's gradient to norm at most ``max_norm``, as DINO does.

    Returns:
        The global norm before clipping, on the device; nothing was synchronised.

    Source: github.com/facebookresearch/dino, utils.py, clip_gradients.
    """
    gradients, norms = _gradients_and_norms(parameters, max_norm)
    if not gradients:
        return norms.sum()
    scales = (max_norm / (norms + _EPSILON)).clamp(max=1.0)
    per_gradient = [s.to(g.device) for s, g in zip(scales.unbind(), gradients, strict=True)]
    torch._foreach_mul_(gradients, per_gradient)
    total: Tensor = torch.linalg.vector_norm(norms)
    return total


@torch.no_grad()
def clip_global(parameters: Iterable[nn.Parameter], max_norm: int | float) -> Float[Tensor, ""]:
    """Scales all gradients together to a joint norm of at most ``max_norm``.

    Returns:
        The joint norm before clipping, on the device; nothing was synchronised.
    """
    gradients, norms = _gradients_and_norms(parameters, max_norm)
    total: Tensor = torch.linalg.vector_norm(norms)
    scale = (max_norm / (total + _EPSILON)).clamp(max=1.0)
    for device in {gradient.device for gradient in gradients}:
        here = [gradient for gradient in gradients if gradient.device == device]
        torch._foreach_mul_(here, scale.to(device))
    return total


def cancel_last_layer_gradients(
    head: nn.Module,
    epoch: int | float,
    freeze_epochs: int | float,
    layer: str = "last_layer",
) -> bool:
    """Drops the gradients of every ``layer`` during the first epochs.

    Call it after clipping and before the optimiser's step; an optimiser skips
    parameters without a gradient, weight decay included.

    Args:
        head: a module with a submodule of that name somewhere in it (the student).
        epoch: epochs completed, so 0 in the first one; fractions are fine.
        freeze_epochs: how long the layer is frozen, in epochs.
        layer: ``last_layer`` for DINO, ``prototypes`` for SwAV.

    Returns:
        Whether gradients were dropped.

    Raises:
        ValueError: there is no such layer and one was to be frozen.
    """
    if epoch >= freeze_epochs:
        return False
    last = [p for name, p in head.named_parameters() if layer in name.split(".")]
    if not last:
        raise ValueError(f"no parameter of a `{layer}` found to freeze; pass the whole student")
    for parameter in last:
        parameter.grad = None
    return True


def _gradients_and_norms(
    parameters: Iterable[nn.Parameter], max_norm: int | float
) -> tuple[list[Tensor], Tensor]:
    if max_norm <= 0:
        raise ValueError(
            f"max_norm={max_norm} must be above 0; leave clipping out to switch it off"
        )
    listed = list(parameters)
    given = [p.grad for p in listed if p.grad is not None]
    if not given:
        return [], torch.zeros(1, device=listed[0].device if listed else None)
    gradients = [own_share(gradient) for gradient in given]
    device = gradients[0].device
    exact = any(gradient.dtype == torch.float64 for gradient in gradients)
    dtype = torch.float64 if exact else torch.float32
    norms = torch.stack([norm.to(device, dtype) for norm in torch._foreach_norm(gradients)])
    mesh = getattr(given[0], "device_mesh", None)
    if mesh is not None:  # each process holds a share of every gradient
        squares = norms.square()
        torch.distributed.all_reduce(squares, group=mesh.get_group())
        norms = squares.sqrt()
    return gradients, norms


def own_share(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all, or its share of a DTensor (FSDP2)."""
    to_local: Callable[[], Tensor] | None = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()
