"""A ConViT that the Hugging Face hub's mixin saves and loads."""

# No `from __future__ import annotations`: the mixin decodes config.json by the types of the
# arguments below, and would find strings.

import dataclasses
from typing import Any

from huggingface_hub import PyTorchModelHubMixin

from convit_ssl.export.infer import config_from_entry
from convit_ssl.export.load import set_layer_norm_eps
from convit_ssl.models import ConViT, ConViTConfig


class HubConViT(
    ConViT,
    PyTorchModelHubMixin,
    library_name="convit_ssl",
    tags=["convit", "image-feature-extraction"],
    paper_url="https://arxiv.org/abs/2103.10697",
):
    """``HubConViT.from_pretrained(folder_or_name)``, ``save_pretrained``, ``push_to_hub``.

    Args:
        config: the model's configuration, or config.json as the mixin reads it.
        layer_norm_eps: of all LayerNorms; 1e-5 in trunks that VISSL trained.
    """

    def __init__(self, config: ConViTConfig | dict[str, Any], layer_norm_eps: float = 1e-6) -> None:
        if isinstance(config, dict):
            fields = {field.name for field in dataclasses.fields(ConViTConfig)}
            known = {key: value for key, value in config.items() if key in fields}
            config = config_from_entry(known, "config.json")
        super().__init__(config)
        set_layer_norm_eps(self, layer_norm_eps)
