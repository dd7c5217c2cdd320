"""Entry points for ``torch.hub.load("OWNER/convit_ssl", "convit_small")``.

Each gives a ConViT at its init; ``checkpoint="trunk.safetensors"`` (a path) gives a trained one.
"""

from typing import Any as _Any

from convit_ssl.export import load_trunk as _load_trunk
from convit_ssl.models import VARIANTS as _VARIANTS
from convit_ssl.models import create_model as _create_model

# Read by torch.hub.
dependencies = ["torch", "jaxtyping", "safetensors"]


def _entrypoint(variant: str) -> _Any:
    def create(checkpoint: str | None = None, weights: str = "teacher", **overrides: _Any) -> _Any:
        if checkpoint is None:
            return _create_model(variant, **overrides)
        unknown = sorted(set(overrides) - {"img_size", "num_classes"})
        if unknown:
            raise TypeError(f"{', '.join(unknown)}: a checkpoint decides on these itself")
        return _load_trunk(checkpoint, weights, variant=variant, **overrides)

    create.__name__ = create.__qualname__ = variant
    create.__doc__ = f"""{variant}, as `convit_ssl.models.{variant}`.

    Args:
        checkpoint: any file that `convit-ssl import` reads; a new network by default.
        weights: teacher, student or ema, where the checkpoint holds several.
        overrides: fields of `ConViTConfig`; with a checkpoint img_size and num_classes=0 alone.
    """
    return create


for _variant in _VARIANTS:
    globals()[_variant] = _entrypoint(_variant)
