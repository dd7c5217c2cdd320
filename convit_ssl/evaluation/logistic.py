"""L2-regularised multinomial logistic regression by L-BFGS, on CPU or GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from convit_ssl.evaluation.splits import ProbeData, Rows


@dataclass(frozen=True)
class LogisticModel:
    """A fitted classifier of standardised features.

    Attributes:
        columns: the features it reads, side by side.
        weight: (D, classes).
        bias: (classes,).
        iterations: of L-BFGS, in all.
    """

    columns: tuple[str, ...]
    weight: Float[Tensor, "dim classes"]
    bias: Float[Tensor, " classes"]
    iterations: int

    def predict(self, data: ProbeData, rows: Rows) -> Rows:
        """Predicted classes (len(rows),)."""
        return np.concatenate([part.argmax(axis=1) for part in self._scored(data, rows)])

    def margins(self, data: ProbeData, rows: Rows) -> Rows:
        """(len(rows),) logits of the second of two classes less those of the first."""
        return np.concatenate([part[:, 1] - part[:, 0] for part in self._scored(data, rows)])

    def _scored(self, data: ProbeData, rows: Rows) -> Iterator[Rows]:
        for _, batch in data.batches(rows):
            features = torch.cat([batch[name] for name in self.columns], dim=1)
            yield (features.to(self.weight) @ self.weight + self.bias).cpu().numpy()


def _entropy(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of cross-entropies, and its gradient at the logits, which takes their place.

    With 1,000 classes the passes over the logits cost more than the matrix products; here each
    is made once, and nothing of their size is allocated.
    """
    rows = torch.arange(len(truth), device=truth.device)
    of_truth = logits[rows, truth].sum()
    largest = logits.amax(dim=1, keepdim=True)
    scale = logits.sub_(largest).exp_().sum(dim=1, keepdim=True)
    logits /= scale
    logits[rows, truth] -= 1.0
    return scale.log().sum() + largest.sum() - of_truth, logits


def fit_logistic(
    data: ProbeData,
    rows: Rows,
    targets: Rows,
    num_classes: int,
    inverse_penalty: float = 1.0,
    *,
    start: LogisticModel | None = None,
    max_iterations: int = 300,
    tolerance: float = 1e-5,
) -> LogisticModel:
    """Minimise C * sum of cross-entropies + 0.5 * |W|^2, with C = `inverse_penalty`.

    The objective of scikit-learn's LogisticRegression; the bias is free. It is convex, so the
    answer does not depend on the start. Float64.

    Args:
        data: standardised features; all its columns are read.
        rows: of train.
        targets: (N,) classes of all images of `data`.
        num_classes: outputs.
        inverse_penalty: C.
        start: a solution for a near C, to begin from.
        max_iterations: of L-BFGS.
        tolerance: largest entry of the gradient per image at which it stops.
    """
    columns = tuple(data.widths())
    width = sum(data.widths().values())
    parameters = torch.zeros(width + 1, num_classes, dtype=torch.float64, device=data.device)
    if start is not None:
        parameters.copy_(torch.cat([start.weight, start.bias.unsqueeze(0)]))
    parameters.requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [parameters],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    images = len(rows)

    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for chunk, batch in data.batches(rows, 16384):
            features = torch.cat([batch[name] for name in columns], dim=1).double()
            yield features, torch.from_numpy(targets[chunk]).to(features.device)

    # L-BFGS reads everything a few hundred times: keep it while it is under 1 GB.
    kept = list(chunks()) if 8 * images * width < 1 << 30 else None

    def closure() -> Tensor:
        weight = parameters.detach()[:-1]
        total: Tensor = 0.5 / (inverse_penalty * images) * weight.square().sum()
        gradient = torch.zeros_like(parameters)
        gradient[:-1] = weight / (inverse_penalty * images)
        for features, truth in kept or chunks():
            logits = features @ weight + parameters.detach()[-1]
            entropy, error = _entropy(logits, truth)
            total = total + entropy / images
            error /= images
            gradient[:-1] += features.t() @ error
            gradient[-1] += error.sum(dim=0)
        parameters.grad = gradient
        return total

    optimiser.step(closure)
    solution = parameters.detach()
    steps = int(optimiser.state[parameters]["n_iter"])
    return LogisticModel(columns, solution[:-1], solution[-1], steps)
