"""One linear classifier over very many classes: a step whose parts stay in a core's cache."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from convit_ssl.evaluation.probes.heads import Head, LinearHeads
from convit_ssl.evaluation.products import fastest


class OneHead(LinearHeads):
    """`LinearHeads` of one head, with weights (classes, width) and logits (classes, batch).

    Both products of a step then have factors whose rows lie one after another.

    Args:
        head: what the classifier reads, and its learning rate.
        widths: channels of each column.
        num_classes: outputs.
        device: where it lives.
    """

    def __init__(
        self,
        head: Head,
        widths: dict[str, int],
        num_classes: int,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__([head], {}, num_classes, device)
        self.weights = {
            name: torch.zeros(num_classes, widths[name], device=device) for name in head.columns
        }
        self._momenta = {name: torch.zeros_like(w) for name, w in self.weights.items()}

    def logits(
        self, columns: dict[str, Float[Tensor, "batch _"]]
    ) -> Float[Tensor, "batch 1 classes"]:
        """Of the head."""
        return self._transposed(columns).t().unsqueeze(1)

    def _transposed(self, columns: dict[str, Tensor]) -> Float[Tensor, "classes batch"]:
        total: Tensor | None = None
        for name, weight in self.weights.items():
            features = columns[name]
            product = fastest(len(weight), len(features), weight.shape[1], weight.device)
            found = product(weight, features)
            total = found if total is None else total.add_(found)
        assert total is not None, "a head reads a column at least"
        return total.add_(self.bias.t())

    def step(
        self,
        columns: dict[str, Float[Tensor, "batch _"]],
        targets: Int[Tensor, " batch"],
        factor: float,
        momentum: float,
    ) -> None:
        """As in `LinearHeads`."""
        gradient = self._transposed(columns).softmax(dim=0)
        gradient[targets, torch.arange(len(targets), device=targets.device)] -= 1.0
        rate, mean = factor * self.heads[0].learning_rate, 1 / len(targets)
        self._bias_momentum.mul_(momentum).add_(gradient.sum(dim=1), alpha=mean)
        self.bias.sub_(self._bias_momentum, alpha=rate)
        for name, weight in self.weights.items():
            turned = columns[name].t().contiguous()
            product = fastest(len(gradient), len(turned), turned.shape[1], weight.device)
            speed = self._momenta[name]
            speed.mul_(momentum).add_(product(gradient, turned), alpha=mean)
            weight.sub_(speed, alpha=rate)
