"""What a path stands for: a file, a run folder, a folder for timm or the hub, a hub name."""

from __future__ import annotations

import functools
import logging
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convit_ssl.checksums import whole_checkpoint
from convit_ssl.errors import UserError
from convit_ssl.export.architectures import activation_of
from convit_ssl.export.stated import Stated
from convit_ssl.runs import RunFolder

_HUB = re.compile(r"^(timm:|hf-hub:|hf_hub:)")
# Names that folders of weights use, the best known first.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "model.pth")
_LOCAL_DIR = "local-dir:"


@dataclass
class Downloaded:
    """Weights that came from a hub."""

    name: str
    tensors: dict[str, Tensor]
    stated: Stated = field(default_factory=Stated)


def locate(name: str) -> Path | Downloaded:
    """The file of weights that a path or a hub name stands for.

    Raises:
        UserError: there is none, with what was looked for.
    """
    if _HUB.match(name):
        return _download(name)
    path = Path(name.removeprefix(_LOCAL_DIR)).expanduser()
    if (whole := whole_checkpoint(path)) is not None:
        return whole[0]
    if not path.is_dir():
        return path
    for candidate in (RunFolder(path).last, path / "last.torch"):
        if candidate.is_file():
            return candidate
    for file in _WEIGHT_FILES:
        if (path / file).is_file():
            return path / file
    runs = sorted(path.glob("*.torch")) + sorted(path.glob("checkpoints/*.torch"))
    runs = [file for file in runs if file.is_file()]
    if runs:
        return max(runs, key=lambda file: file.stat().st_mtime)
    others = sorted([*path.glob("*.safetensors"), *path.glob("*.pth")])
    if len(others) == 1:
        return others[0]
    below = sorted(file.parent for name in _WEIGHT_FILES for file in path.glob(f"*/{name}"))
    names = [file.name for file in others] or [str(folder) for folder in below]
    seen = f"; give one of {', '.join(names)}" if names else ""
    raise UserError(
        f"{path} contains no weights: neither checkpoints/last.torch (a run) nor "
        f"{', '.join(_WEIGHT_FILES)}{seen}"
    )


def _download(name: str) -> Downloaded:
    import timm

    model_name = name.removeprefix("timm:")
    # Six attempts without a network are six warnings, before the one message below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    say_fetching(name)
    try:
        model = timm.create_model(model_name, pretrained=True)
    # Whatever goes wrong between here and a hub, the user needs the name and the reason.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name} could not be fetched ({type(error).__name__}: {reason[:200]}); without a "
            "network, download the file elsewhere and give its path"
        ) from error
    return Downloaded(name, dict(model.state_dict()), stated_by_timm(model))


def stated_by_timm(model: nn.Module) -> Stated:
    """What a model of timm says about itself, apart from its tensors."""
    blocks: Any = getattr(model, "blocks", None)
    norm: Any = getattr(model, "norm", None)
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    patches: Any = getattr(model, "patch_embed", None)
    size = getattr(patches, "img_size", None)
    attention = getattr(blocks[0], "attn", None) if blocks is not None and len(blocks) else None
    return Stated(
        num_heads=getattr(attention, "num_heads", None),
        eps=getattr(norm, "eps", None),
        sizes=(tuple(size),) if size is not None else (),
        mean=tuple(cfg["mean"]) if cfg.get("mean") else None,
        std=tuple(cfg["std"]) if cfg.get("std") else None,
        interpolation=cfg.get("interpolation"),
        crop_ratio=cfg.get("crop_pct"),
        activation=activation_of(blocks),
        origin=dict.fromkeys(
            ("num_heads", "eps", "sizes", "mean", "std", "activation"), "timm's model"
        ),
    )


@functools.cache
def say_fetching(name: str) -> None:
    """Once a process, though a command may load the same weights several times."""
    text = f"fetching {name}; without a network this ends with an error within a minute"
    print(text, file=sys.stderr, flush=True)
