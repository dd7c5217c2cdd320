"""VISSL's own trunks, built as VISSL builds them."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from convit_ssl import adapters
from convit_ssl.errors import UserError
from convit_ssl.models import ConViTConfig


def build_vissl_trunk(name: str, config: ConViTConfig) -> nn.Module:
    """A trunk by its name in VISSL's registry, with VISSL's default options.

    Args:
        name: ``convit`` or ``convit_ssl``.
        config: its sizes.

    Raises:
        UserError: VISSL is not installed, or has no such trunk.
    """
    with warnings.catch_warnings():
        # VISSL imports parts of torchvision that are on their way out.
        warnings.simplefilter("ignore")
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
    return model
