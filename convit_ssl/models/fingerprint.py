"""One number for what a network computes, so that equal networks can be told from others."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import torch
from torch import nn

from convit_ssl.models.attention import Mlp

# Fields of a configuration that say how weights were drawn or trained: once they are there, no
# output depends on them, and files of other libraries do not tell them.
_NO_OUTPUT_DEPENDS_ON = {
    "local_init",
    "locality_strength",
    "init_std",
    "pos_embed_std",
    "use_pos_embed",  # the weights say it: there is a pos_embed or there is none
    "drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
}


def weights_fingerprint(model: nn.Module) -> str:
    """sha256 of all that the outputs in eval mode depend on.

    These are the parameters and buffers by name, the epsilons of the norms, and the model's
    `config` where it has one, without what only its init or training went by.
    """
    digest = hashlib.sha256()
    config = getattr(model, "config", None)
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = dataclasses.asdict(config)
        kept = {key: value for key, value in fields.items() if key not in _NO_OUTPUT_DEPENDS_ON}
        digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
    norms = sorted({module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)})
    digest.update(json.dumps(norms).encode())
    others = {type(m.act).__name__ for m in model.modules() if isinstance(m, Mlp)} - {"GELU"}
    if others:  # ConViT's own activation leaves no trace, so that older fingerprints hold
        digest.update(json.dumps(sorted(others)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()
