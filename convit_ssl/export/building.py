"""A model from a configuration and tensors, compared before anything is allocated."""

from __future__ import annotations

import dataclasses
import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convit_ssl.errors import UserError
from convit_ssl.export.infer import variant_of
from convit_ssl.models import ConViT, ConViTConfig
from convit_ssl.models.attention import Mlp
from convit_ssl.reading import printable

# Keys of a trunk's own state dict that belong to training heads, and are left out with notice.
_HEADS = ("head_dist.", "heads.", "head.", "projector.", "predictor.", "fc_norm.", "pre_logits.")


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), of OpenAI's CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


class TanhGELU(nn.GELU):
    """GELU by its tanh formula."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")


_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU, "gelu_tanh": TanhGELU, "quick_gelu": QuickGELU, "relu": nn.ReLU,
    "silu": nn.SiLU,
}  # fmt: skip


def build(config: ConViTConfig, tensors: dict[str, Tensor], path: str) -> tuple[ConViT, list[str]]:
    """A model in eval mode that holds these weights, and the keys it had no use for.

    Raises:
        UserError: a weight is missing, unknown, of another shape or of whole numbers.
    """
    own = _shapes(config, tensors, path)
    unknown = [key for key in tensors if key not in own]
    left_out = [key for key in unknown if key.startswith(_HEADS)]
    faults = [f"{key} is missing" for key in own if key not in tensors]
    faults += [f"{printable(key)} is unknown" for key in unknown if key not in left_out]
    faults += [
        f"{key} has shape {tuple(tensors[key].shape)} and not {tuple(value.shape)}"
        for key, value in own.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    faults += [
        f"{key} holds {str(tensors[key].dtype).removeprefix('torch.')} numbers"
        for key, value in own.items()
        if key in tensors and value.is_floating_point() and not tensors[key].is_floating_point()
    ]
    if faults:
        more = f", and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise UserError(
            f"{path} does not fit {describe(config)}; nothing was loaded: "
            + "; ".join(faults[:4])
            + more
        )
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten
        model = ConViT(config)
    model.load_state_dict({key: tensors[key] for key in own})
    return model.eval(), left_out


def _shapes(config: ConViTConfig, tensors: dict[str, Tensor], path: str) -> dict[str, Tensor]:
    """The state dict of a configuration without its memory, once its depth is that of the file.

    Raises:
        UserError: the file has another number of blocks, or no network has such sizes.
    """
    blocks = {match[1] for key in tensors if (match := re.match(r"blocks\.(\d+)\.", key))}
    if config.depth > len(blocks):
        raise UserError(
            f"{path} does not fit its description: that says {config.depth} layers, and there are "
            f"tensors of {len(blocks)}; blocks.{len(blocks)} is missing. Nothing was loaded"
        )
    # No plain construction: a description may ask for any width, and is only compared here.
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            plain = dataclasses.replace(config, local_init=False)
            return dict(ConViT(plain).state_dict())
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        reason = printable(str(error).partition("\n")[0])
        raise UserError(f"{path} describes an invalid network: {reason}") from error


def resized(model: ConViT, img_size: int | tuple[int, int]) -> ConViT:
    """The same model with position embeddings resampled to another size of image.

    The resampling is the one the model does itself when it sees images of that size, so
    outputs on them are the same.

    Raises:
        UserError: the patch does not divide the size.
    """
    try:
        config = dataclasses.replace(model.config, img_size=img_size)
    except ValueError as error:
        raise UserError(str(error)) from error
    own = model.grid_size(*model.config.image_shape)
    grid = config.grid_size(*config.image_shape)
    tensors = with_positions_for(dict(model.state_dict()), own, grid)
    other, _ = build(config, tensors, f"the model at {img_size} pixels")
    set_layer_norm_eps(other, layer_norm_eps(model))
    set_activation(other, activation(model))
    if hasattr(model, "provenance"):
        other.provenance = model.provenance
    return other


def with_positions_for(
    tensors: dict[str, Tensor], own: tuple[int, int], grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Official weights with their position embeddings, if any, resampled to another grid."""
    if "pos_embed" not in tensors:
        return tensors
    return {**tensors, "pos_embed": resample_positions(tensors["pos_embed"], own, grid)}


def resample_positions(pos_embed: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1, N, D) for another grid, as the model does it in its forward."""
    if grid == own:
        return pos_embed
    as_map = pos_embed.float().transpose(1, 2).reshape(1, -1, *own)  # (1, D, height, width)
    as_map = F.interpolate(as_map, size=grid, mode="bicubic", align_corners=False)
    return as_map.flatten(2).transpose(1, 2).to(pos_embed.dtype)


def set_layer_norm_eps(model: ConViT, eps: float) -> None:
    """Give all LayerNorms this epsilon: 1e-6 in ConViT, 1e-5 in VISSL's own."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps


def layer_norm_eps(model: ConViT) -> float:
    """The epsilon of the model's LayerNorms."""
    return float(model.norm.eps)


def set_activation(model: ConViT, name: str) -> None:
    """Give all MLPs this activation; GELU is ConViT's own."""
    for module in model.modules():
        if isinstance(module, Mlp) and type(module.act) is not _ACTIVATIONS[name]:
            module.act = _ACTIVATIONS[name]()


def check_activation(model: ConViT, path: str) -> None:
    """Refuse weights that training would continue with another activation.

    Raises:
        UserError: theirs is not GELU, which training builds.
    """
    if activation(model) != "gelu":
        raise UserError(
            f"{path} was made with the activation {activation(model)}, and training builds GELU; "
            "such weights can be evaluated and exported, not trained from"
        )


def activation(model: ConViT) -> str:
    """The name of the activation of the model's MLPs."""
    kinds = {type(module.act) for module in model.modules() if isinstance(module, Mlp)}
    return next((name for name, kind in _ACTIVATIONS.items() if kind in kinds), "gelu")


def shape(config: ConViTConfig) -> dict[str, int]:
    """What makes it this network and no other, whatever the images."""
    names = ("embed_dim", "depth", "num_heads", "num_gpsa_layers")
    return {name: getattr(config, name) for name in names}


def describe(config: ConViTConfig) -> str:
    """A configuration in a few words."""
    name = variant_of(config) or "a ConViT"
    return (
        f"{name} (width {config.embed_dim}, {config.num_heads} heads, {config.depth} layers of "
        f"which {config.num_gpsa_layers} GPSA, patch {config.patch_size}, "
        f"{config.image_shape[0]} x {config.image_shape[1]} px)"
    )
