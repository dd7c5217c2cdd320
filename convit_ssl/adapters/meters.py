"""Accuracy of one classifier or of many probes, counted exactly over all processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from classy_vision.generic.distributed_util import is_distributed_training_run
from classy_vision.meters import ClassyMeter, register_meter
from torch import Tensor


@register_meter("convit_ssl_accuracy")
class Accuracy(ClassyMeter):  # type: ignore[misc]
    """Top-1 and top-5 accuracy per classifier, on a held-out part of train and on val.

    Args:
        num_holdout: the first so many images of the test set are held out of train; 0 for none.
    """

    def __init__(self, num_holdout: int = 0) -> None:
        self.num_holdout = num_holdout
        self.counts: Tensor | None = None

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Accuracy:
        """From a section of ``METERS``."""
        return cls(int(config.get("num_holdout", 0)))

    @property
    def name(self) -> str:
        """The meter's name in VISSL's registry."""
        return "convit_ssl_accuracy"

    @property
    def value(self) -> dict[str, list[float]]:
        """Accuracies per classifier: ``top1``, ``top5``, and ``holdout`` where there is one."""
        if self.counts is None:
            return {}
        holdout, val = self.counts[0].double(), self.counts[1].double()
        values = {"top1": val[:, 0] / val[:, 2], "top5": val[:, 1] / val[:, 2]}
        if self.num_holdout:
            values["holdout"] = holdout[:, 0] / holdout[:, 2]
        return {key: [round(float(v), 6) for v in value] for key, value in values.items()}

    def update(self, output: Tensor | list[Tensor], target: Tensor, **kwargs: Any) -> None:
        """Count a batch: logits (B, C), or one (B, probes, C) per feature; index tells the part."""
        outputs = output if isinstance(output, list) else [output]
        logits = torch.cat([o if o.dim() == 3 else o.unsqueeze(1) for o in outputs], dim=1)
        best = logits.topk(min(5, logits.shape[-1]), dim=-1).indices  # (B, P, 5)
        hits = best == target.view(-1, 1, 1)
        ones = torch.ones_like(target).view(-1, 1).expand(-1, logits.shape[1])
        row = torch.stack([hits[..., 0], hits.any(dim=-1), ones.bool()], dim=-1).long()
        held_out = kwargs["index"].to(target.device) < self.num_holdout
        parts = torch.stack([row[held_out].sum(dim=0), row[~held_out].sum(dim=0)])  # (2, P, 3)
        self.counts = parts if self.counts is None else self.counts + parts

    def sync_state(self) -> None:
        """Add up the processes' counts."""
        if self.counts is not None and is_distributed_training_run():
            dist.all_reduce(self.counts)

    def reset(self) -> None:
        """Forget all counts."""
        self.counts = None

    def validate(self, model_output_shape: Any, target_shape: Any) -> None:
        """Nothing to check: the shapes are those of the heads."""

    def get_classy_state(self) -> dict[str, Any]:
        """Counts are made anew in each test phase."""
        return {"name": self.name}

    def set_classy_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
