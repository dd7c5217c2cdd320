"""VISSL's own trunks, built as VISSL builds them, to audit them and to compare outputs."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convit_ssl import adapters
from convit_ssl.errors import UserError
from convit_ssl.export.check import Difference, compare, own_size
from convit_ssl.export.keys import to_vissl
from convit_ssl.export.load import from_tensors
from convit_ssl.models import VARIANTS, ConViT, ConViTConfig


def vissl_trunk_by_name(name: str) -> ConViT:
    """``convit``, ``convit/convit_tiny_plus``, or ``convit_ssl`` for ours as VISSL builds it.

    Without a size it is the ConViT-S of VISSL's own experiments (9 heads of 64 channels).

    Raises:
        UserError: another name, or VISSL is not installed.
    """
    trunk, _, variant = name.partition("/")
    variant = variant or "convit_small_plus"
    if variant not in VARIANTS:
        raise UserError(f"vissl:{name}: the size is one of {', '.join(VARIANTS)}")
    model = build_vissl_trunk(trunk, VARIANTS[variant])
    return from_tensors(dict(model.state_dict()), f"vissl:{name}")


def build_vissl_trunk(name: str, config: ConViTConfig) -> nn.Module:
    """A trunk by its name in VISSL's registry, with VISSL's default options.

    Args:
        name: ``convit`` or ``convit_ssl``.
        config: its sizes.

    Raises:
        UserError: VISSL is not installed, or has no such trunk.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # VISSL imports parts of torchvision that are on their way out
        adapters.register()
    import vissl
    from omegaconf import OmegaConf
    from vissl.models.trunks import get_model_trunk
    from vissl.utils.hydra_config import AttrDict

    if name not in ("convit", "convit_ssl"):
        raise UserError(f"vissl:{name} is not a ConViT; use vissl:convit or vissl:convit_ssl")
    folder = Path(vissl.__path__[0])
    defaults: Any = OmegaConf.load(folder / "config" / "defaults.yaml")
    options: Any = OmegaConf.to_container(defaults.config.MODEL, resolve=False)
    fields = dataclasses.asdict(config)
    options["TRUNK"]["CONVIT_SSL"] = {key.upper(): value for key, value in fields.items()}
    options["TRUNK"]["CONVIT"]["N_GPSA_LAYERS"] = config.num_gpsa_layers
    options["TRUNK"]["VISION_TRANSFORMERS"].update(
        IMAGE_SIZE=config.image_shape[0],
        PATCH_SIZE=config.patch_size,
        NUM_LAYERS=config.depth,
        NUM_HEADS=config.num_heads,
        HIDDEN_DIM=config.embed_dim,
        MLP_DIM=int(config.embed_dim * config.mlp_ratio),
        QKV_BIAS=config.qkv_bias,
    )
    model: nn.Module = get_model_trunk(name)(AttrDict(options), name)
    return model.eval()


def vissl_difference(model: ConViT) -> Difference:
    """How far VISSL's own class, given these weights, is from our model."""
    with torch.random.fork_rng(devices=[]):
        theirs = build_vissl_trunk("convit", model.config)
    grid = model.grid_size(*model.config.image_shape)
    theirs.load_state_dict(to_vissl(model.state_dict(), grid=grid), strict=True)

    def features(images: Tensor) -> Tensor:
        out: Tensor = theirs(images, None)[0]
        return out

    def ours(images: Tensor) -> Tensor:
        return model.forward_head(model.forward_features(images), pre_logits=True)

    return compare(model, features, own_size(model), ours)
