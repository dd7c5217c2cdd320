"""Accuracy of one classifier or many probes, counted exactly over all processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from classy_vision.generic.distributed_util import is_distributed_training_run
from classy_vision.meters import ClassyMeter, register_meter
from torch import Tensor

from convit_ssl.evaluation.accuracy import class_figures
from convit_ssl.evaluation.processes import gather

TOP = 5
# Columns of the counts: right, among the best TOP, all.
_RIGHT, _NEAR, _ALL = range(3)


@register_meter("convit_ssl_accuracy")
class Accuracy(ClassyMeter):
    """Accuracy per classifier, on a held-out part of train and on val.

    Unreadable images (target -1) are left out, and their number is reported.

    Args:
        num_holdout: number of images, first in the test set, held out of train; 0 for none.
    """

    def __init__(self, num_holdout: int = 0) -> None:
        self.num_holdout = num_holdout
        # (2 parts, classes + 1, classifiers, 3); the last class is that of unreadable images.
        self.counts: Tensor | None = None
        self._scores: list[Tensor] = []  # of two classes: target, then a margin per classifier

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Accuracy:
        """From a section of ``METERS``."""
        return cls(int(config.get("num_holdout", 0)))

    @property
    def name(self) -> str:
        """The meter's name in VISSL's registry."""
        return "convit_ssl_accuracy"

    @property
    def value(self) -> dict[str, list[Any]]:
        """Figures per classifier, shares of 0..1.

        ``top1``, ``balanced_accuracy`` (mean recall over the classes that val has) and
        ``recall`` (a list over the classes; None for one without images); ``top5`` where there
        are more than five classes; ``auc`` (area under the ROC curve) of two classes;
        ``holdout`` where there is a held-out part; ``unreadable`` images of val, if any.
        """
        if self.counts is None:
            return {}
        holdout, val = self.counts[:, :-1].double().sum(dim=1)  # (classifiers, 3) each
        classes = self.counts.shape[1] - 1
        values: dict[str, list[Any]] = {"top1": _shares(val[:, _RIGHT] / val[:, _ALL])}
        if classes > TOP:
            values["top5"] = _shares(val[:, _NEAR] / val[:, _ALL])
        table = self.counts[1, :-1].double()
        known = table[:, 0, _ALL] > 0
        recall = (table[..., _RIGHT] / table[..., _ALL]).T  # (classifiers, classes)
        values["balanced_accuracy"] = _shares(recall[:, known].mean(dim=1))
        values["recall"] = [
            [share if seen else None for share, seen in zip(_shares(row), known, strict=True)]
            for row in recall
        ]
        if self._scores and int(known.sum()) == 2:
            values["auc"] = self._areas()
        if self.num_holdout:
            values["holdout"] = _shares(holdout[:, _RIGHT] / holdout[:, _ALL])
        if missing := int(self.counts[1, -1, 0, _ALL]):
            values["unreadable"] = [missing] * len(val)
        return values

    def _areas(self) -> list[float | None]:
        rows = torch.cat(self._scores).numpy()
        targets = rows[:, 0].astype(int)
        names = ("0", "1")
        found = (class_figures(targets, targets, names, margins).auc for margins in rows[:, 1:].T)
        return [None if area is None else round(area, 6) for area in found]

    def update(self, output: Tensor | list[Tensor], target: Tensor, **kwargs: Any) -> None:
        """Count a batch: logits (B, C), or (B, probes, C) per feature; index tells the part."""
        outputs = output if isinstance(output, list) else [output]
        logits = torch.cat([o if o.dim() == 3 else o.unsqueeze(1) for o in outputs], dim=1)
        classifiers, classes = logits.shape[1:]
        best = logits.topk(min(TOP, classes), dim=-1).indices  # (B, P, 5)
        hits = best == target.view(-1, 1, 1)
        row = torch.stack([hits[..., 0], hits.any(dim=-1), torch.ones_like(hits[..., 0])], dim=-1)
        held_out = kwargs["index"].to(target.device) < self.num_holdout
        readable = target >= 0
        place = torch.where(readable, target, classes) + (~held_out).long() * (classes + 1)
        table = row.new_zeros((2 * (classes + 1), classifiers, 3), dtype=torch.long)
        table.index_add_(0, place, row.long())
        counts = table.unflatten(0, (2, classes + 1))
        self.counts = counts if self.counts is None else self.counts + counts
        if classes == 2:
            margins = (logits[..., 1] - logits[..., 0]).float()
            rows = torch.cat([target.unsqueeze(1).float(), margins], dim=1)
            self._scores.append(rows[readable & ~held_out].cpu())

    def sync_state(self) -> None:
        """Add up the processes' counts, and collect their scores."""
        if self.counts is None or not is_distributed_training_run():
            return
        dist.all_reduce(self.counts)
        if self.counts.shape[1] == 3:  # two classes
            rows = torch.cat(self._scores).numpy() if self._scores else np.zeros((0, 2))
            self._scores = [torch.as_tensor(part) for part in gather(rows) if len(part)]

    def reset(self) -> None:
        """Forget all counts."""
        self.counts = None
        self._scores = []

    def validate(self, model_output_shape: Any, target_shape: Any) -> None:
        """Nothing to check: the shapes follow from the heads."""

    def get_classy_state(self) -> dict[str, Any]:
        """Nothing to save: each test phase starts from 0."""
        return {"name": self.name}

    def set_classy_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def _shares(values: Tensor) -> list[float]:
    return [round(float(value), 6) for value in values]
