"""Fine-tuning in plain PyTorch: layer-wise learning rates, frozen starts, hard distillation."""

from __future__ import annotations

import re
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

NO_DECAY = ("pos_embed", "cls_token")


def layer_of(name: str, depth: int) -> int:
    """Which layer a parameter of a ConViT belongs to.

    0 is the embedding of patches, positions and class token, i + 1 is block i, depth + 1 is
    the last norm and the classifier, as in MAE (timm counts the norm to the last block).
    Prefixes such as `trunk.` do not matter.
    """
    block = re.search(r"(?:^|\.)blocks\.(\d+)\.", name)
    if block is not None:
        return int(block[1]) + 1
    embedding = re.search(r"(?:^|\.)(patch_embed\.|pos_embed$|cls_token$)", name)
    return 0 if embedding else depth + 1


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices, not to vectors, tokens and positions.

    Gates, biases and norms are vectors; `pos_proj.weight` is a matrix, and decays as in the
    released recipe.
    """
    return parameter.dim() > 1 and name.rpartition(".")[2] not in NO_DECAY


def parameter_groups(
    model: nn.Module,
    depth: int,
    learning_rate: float,
    weight_decay: float = 0.05,
    layer_decay: float = 0.65,
) -> list[dict[str, Any]]:
    """Groups for an optimiser: each layer learns `layer_decay` times as fast as the one above.

    Args:
        model: a ConViT, alone or inside of other modules.
        depth: blocks of the ConViT.
        learning_rate: of the classifier and the last norm.
        weight_decay: of the parameters that decay.
        layer_decay: 1 makes all layers learn alike. MAE's fine-tuning uses 0.65.

    Returns:
        Groups with `params`, `names`, `lr`, `lr_scale`, `layer` and `weight_decay`, the
        lowest layer first. Parameters that need no gradient are left out.

    Source: ELECTRA (arXiv:2003.10555), BEiT and MAE (arXiv:2111.06377, appendix A.1).
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, decayed = layer_of(name, depth), decays(name, parameter)
        if (layer, decayed) not in groups:
            scale = layer_decay ** (depth + 1 - layer)
            groups[layer, decayed] = {
                "params": [],
                "names": [],
                "lr": learning_rate * scale,
                "lr_scale": scale,
                "layer": layer,
                "weight_decay": weight_decay if decayed else 0.0,
            }
        groups[layer, decayed]["params"].append(parameter)
        groups[layer, decayed]["names"].append(name)
    return [groups[key] for key in sorted(groups)]


class FrozenStart:
    """Keeps everything but the classifier still for the first epochs.

    A new classifier starts from noise, and its first gradients would undo some of what the
    trunk has learned. Parameters that were frozen before stay frozen.

    Args:
        model: a ConViT, or a model that holds one as `trunk`.
        epochs: how long; 0 never freezes.
        heads: names, or prefixes of names, of what learns from the start.
    """

    def __init__(
        self, model: nn.Module, epochs: float, heads: tuple[str, ...] = ("head", "heads")
    ) -> None:
        self.epochs = epochs
        self._held = [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and not name.startswith(tuple(f"{h}." for h in heads))
        ]

    def apply(self, epoch: float) -> bool:
        """Set `requires_grad` for an epoch, counted from 0; returns whether the trunk learns.

        Make the optimiser before, with all parameters: those without gradients are skipped.
        """
        learns = epoch >= self.epochs
        for parameter in self._held:
            parameter.requires_grad_(learns)
            if not learns:
                parameter.grad = None
        return learns


class HardDistillation(nn.Module):
    """Half of the loss from the labels, half from the teacher's own decisions.

    L = (1 - weight) * CE(student, labels) + weight * CE(student, argmax teacher), the hard
    distillation of DeiT (arXiv:2012.12877, equation 3) with one head, with which ConViT-S+
    reaches 82.9 (arXiv:2103.10697, section 4).

    Args:
        teacher: a classifier of the same images; kept in eval mode, without gradients, and
            out of the state dict.
        weight: share of the teacher.
        smoothing: of labels that are given as classes.

    Attributes:
        parts: in how many the teacher sees a batch, where memory is short.
    """

    def __init__(self, teacher: nn.Module, weight: float = 0.5, smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise ValueError(f"weight is a share from 0 to 1, found {weight}")
        # In a list, so that the teacher is no submodule: it is not trained, saved or wrapped.
        self._teacher = [teacher.requires_grad_(False).eval()]
        self.weight = weight
        self.smoothing = smoothing
        self.parts = 1

    @property
    def teacher(self) -> nn.Module:
        """The teacher."""
        return self._teacher[0]

    @torch.no_grad()
    def decisions(self, images: Float[Tensor, "batch chans height width"]) -> Int[Tensor, " batch"]:
        """The teacher's classes of the images that the student sees, mixed ones too."""
        device = next(self.teacher.parameters()).device
        if device != images.device:
            self.teacher.to(images.device)
        parts = images.chunk(self.parts)
        return torch.cat([self.teacher(part).argmax(dim=1) for part in parts])

    def forward(
        self,
        logits: Float[Tensor, "batch classes"],
        labels: Tensor,
        images: Float[Tensor, "batch chans height width"],
    ) -> Float[Tensor, ""]:
        """The loss.

        Args:
            logits: the student's.
            labels: classes (B,), or shares of classes (B, classes) after mixup and cutmix.
            images: what the student saw.

        Raises:
            ValueError: teacher and student have different numbers of classes.
        """
        decided = self.decisions(images)
        if int(decided.max()) >= logits.shape[1]:
            raise ValueError(
                f"the teacher decided for class {int(decided.max())}, but the student has "
                f"{logits.shape[1]}; both must be made for the same classes"
            )
        from_labels = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        from_teacher = F.cross_entropy(logits, decided)
        return (1 - self.weight) * from_labels + self.weight * from_teacher
