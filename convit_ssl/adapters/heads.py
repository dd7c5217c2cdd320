"""The head that VISSL sees; it builds the head of the method.

VISSL passes the model configuration to every head. The input width is read from its trunk, so it
need not be configured twice.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from vissl.models.heads import register_model_head

from convit_ssl.adapters.trunk import trunk_config
from convit_ssl.methods import Run, get_method, options_of


def trunk_width(model_config: Any) -> int:
    """Channels of the trunk's feature.

    Raises:
        ValueError: a trunk of another kind.
    """
    trunk = model_config.TRUNK
    if trunk.NAME == "convit_ssl":
        return int(trunk_config(trunk.CONVIT_SSL).embed_dim)
    if trunk.NAME == "convit_ssl_other":
        return int(trunk.CONVIT_SSL_OTHER.EMBED_DIM)
    raise ValueError(
        f"trunk {trunk.NAME!r} is not convit_ssl; follow it by VISSL's own heads, which take "
        "their input width as an option"
    )


@register_model_head("convit_ssl_head")
def build_head(
    model_config: Any, method: dict[str, Any], run: dict[str, Any], features: str = "lastCLS"
) -> nn.Module:
    """The head of a method behind the trunk.

    Args:
        model_config: VISSL's model section.
        method: its options, with its name.
        run: what the method needs to know about the run.
        features: VISSL's name of the feature.
    """
    width = trunk_width(model_config) * feature_multiple(features)
    return get_method(method["name"]).head(options_of(method), width, Run(**run))


def feature_multiple(name: str) -> int:
    """Number of class or patch tokens that a feature concatenates: 3 for concatCLS2+meanPATCH."""
    parts = name.split("+")
    return sum(int(p.removeprefix("concatCLS")) if p.startswith("concat") else 1 for p in parts)
