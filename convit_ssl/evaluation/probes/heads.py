"""Many linear classifiers trained in one pass over the same features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from convit_ssl.evaluation.probes.splits import ProbeData, Rows

Choice = tuple[str, ...]
MANY_CLASSES = 50  # up to here whole passes are faster than torch's softmax, by 3 at 10 classes
VERY_MANY_CLASSES = 200  # beyond, a step of one head is work enough for a core


@dataclass(frozen=True)
class Head:
    """One classifier of the sweep.

    Attributes:
        columns: the features it reads, side by side.
        learning_rate: at the start, for batches of 256.
    """

    columns: Choice
    learning_rate: float


class LinearHeads:
    """H linear classifiers; each reads some of the feature columns.

    The heads that read a column share one matrix product with it: its weight is
    (width, heads that read it, classes). So the whole sweep costs one product per column, not
    one per head, and the gradient of softmax regression is written down instead of recorded.

    Args:
        heads: what each classifier reads, and its learning rate.
        widths: channels of each column.
        num_classes: outputs of each. They start at zero: the problem is convex.
        device: where they live.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        widths: dict[str, int],
        num_classes: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.heads = list(heads)
        self.num_classes = num_classes
        rates = torch.tensor([head.learning_rate for head in heads])
        self.rates = rates.to(device).view(-1, 1)
        self.bias = torch.zeros(len(heads), num_classes, device=device)
        self.readers: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}
        for name, width in widths.items():
            readers = [i for i, head in enumerate(heads) if name in head.columns]
            if not readers:
                continue
            self.readers[name] = torch.tensor(readers, device=device)
            self.weights[name] = torch.zeros(width, len(readers), num_classes, device=device)
        self._momenta = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self._bias_momentum = torch.zeros_like(self.bias)

    def logits(
        self, columns: dict[str, Float[Tensor, "batch _"]]
    ) -> Float[Tensor, "batch heads classes"]:
        """Of all heads."""
        batch = next(iter(columns.values())).shape[0]
        out = self.bias.expand(batch, -1, -1).clone()
        for name, weight in self.weights.items():
            product = (columns[name] @ weight.flatten(1)).view(batch, -1, self.num_classes)
            out.index_add_(1, self.readers[name], product)
        return out

    def step(
        self,
        columns: dict[str, Float[Tensor, "batch _"]],
        targets: Int[Tensor, " batch"],
        factor: float,
        momentum: float,
    ) -> None:
        """One step of SGD with momentum on the mean cross-entropy of each head.

        Args:
            columns: features.
            targets: classes.
            factor: of the learning rates, by the schedule.
            momentum: as in torch.optim.SGD.
        """
        gradient = _softmax(self.logits(columns))  # (B, H, C)
        index = targets.view(-1, 1, 1).expand(-1, len(self.heads), 1)
        gradient.scatter_add_(2, index, -torch.ones_like(index, dtype=gradient.dtype))
        gradient /= len(targets)
        rates = factor * self.rates
        self._bias_momentum.mul_(momentum).add_(gradient.sum(dim=0))
        self.bias -= rates * self._bias_momentum
        for name, weight in self.weights.items():
            own = gradient.index_select(1, self.readers[name]).flatten(1)
            speed = self._momenta[name]
            speed.mul_(momentum).add_((columns[name].t() @ own).view_as(weight))
            weight.addcmul_(speed, rates[self.readers[name]], value=-1.0)

    def score(
        self, data: ProbeData, rows: Rows, targets: Rows
    ) -> tuple[Float[Tensor, " heads"], Float[Tensor, " heads"]]:
        """Accuracy and mean cross-entropy of each head on some rows."""
        right, loss = (torch.zeros(len(self.heads), dtype=torch.float64) for _ in range(2))
        for chunk, columns in data.batches(rows, self._rows_at_a_time()):
            logits = self.logits(columns)
            truth = torch.from_numpy(targets[chunk]).to(logits.device)
            right += (logits.argmax(dim=-1) == truth.view(-1, 1)).double().sum(dim=0).cpu()
            spread = truth.view(-1, 1).expand(-1, len(self.heads))
            each = F.cross_entropy(logits.transpose(1, 2), spread, reduction="none")
            loss += each.double().sum(dim=0).cpu()
        return right / len(rows), loss / len(rows)

    def predict(self, data: ProbeData, rows: Rows, head: int = 0) -> Rows:
        """Predicted classes (len(rows),) of one head."""
        return np.concatenate([part.argmax(axis=1) for part in self._scored(data, rows, head)])

    def margins(self, data: ProbeData, rows: Rows, head: int = 0) -> Rows:
        """(len(rows),) logits of the second of two classes less those of the first."""
        return np.concatenate([part[:, 1] - part[:, 0] for part in self._scored(data, rows, head)])

    def _scored(self, data: ProbeData, rows: Rows, head: int) -> Iterator[Rows]:
        for _, columns in data.batches(rows, self._rows_at_a_time()):
            yield self.logits(columns)[:, head].cpu().numpy()

    def _rows_at_a_time(self) -> int:
        """Rows whose logits take up to 256 MB."""
        return max(64, min(8192, 2**26 // (len(self.heads) * self.num_classes)))


def train_heads(
    heads: LinearHeads,
    data: ProbeData,
    rows: Rows,
    targets: Rows,
    *,
    iterations: int,
    batch_size: int,
    momentum: float,
    seed: int,
    longer: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train all heads together, by a cosine from their learning rates to 0.

    Args:
        heads: changed in place.
        data: the features.
        rows: of train.
        targets: (N,) classes of all images of `data`.
        iterations: steps.
        batch_size: images in a step, drawn without replacement in each epoch.
        momentum: of SGD.
        seed: of the order of images.
        longer: factor of all learning rates.
        progress: called with (steps done, steps).
    """
    stream = _shuffled(rows, min(batch_size, len(rows)), np.random.default_rng(seed))
    for step in range(iterations):
        chosen = next(stream)
        truth = torch.from_numpy(targets[chosen]).to(heads.bias.device)
        factor = 0.5 * longer * (1 + math.cos(math.pi * step / iterations))
        heads.step(data.batch(chosen), truth, factor * batch_size / 256, momentum)
        if progress is not None and (step % 20 == 19 or step + 1 == iterations):
            progress(step + 1, iterations)


def _softmax(logits: Tensor) -> Tensor:
    """Over the last dimension; overwrites its argument where that is faster."""
    if logits.shape[-1] > MANY_CLASSES:
        return logits.softmax(dim=-1)
    logits.sub_(logits.amax(dim=-1, keepdim=True)).exp_()
    return logits.div_(logits.sum(dim=-1, keepdim=True))


def _shuffled(rows: Rows, size: int, generator: np.random.Generator) -> Iterator[Rows]:
    while True:
        order = generator.permutation(rows)
        for first in range(0, len(order) - size + 1, size):
            yield order[first : first + size]
