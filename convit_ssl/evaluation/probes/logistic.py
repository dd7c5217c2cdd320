"""L2-regularised multinomial logistic regression by L-BFGS, on CPU or GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from convit_ssl.evaluation.probes.heads import VERY_MANY_CLASSES
from convit_ssl.evaluation.probes.logistic_many import ManyClasses, pool_for, whitening
from convit_ssl.evaluation.probes.splits import ProbeData, Rows
from convit_ssl.models.products import onednn_products

FINEST = 1e-7  # of the gradients that are found from products in float32
# Value and gradient at parameters: weights and, in the last row, the bias.
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


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

    Each pass over the logits is made once, and nothing of their size is allocated.
    """
    rows = torch.arange(len(truth), device=truth.device)
    of_truth = logits[rows, truth].sum()
    largest = logits.amax(dim=1, keepdim=True)
    scale = logits.sub_(largest).exp_().sum(dim=1, keepdim=True)
    logits /= scale
    logits[rows, truth] -= 1.0
    return scale.log().sum() + largest.sum() - of_truth, logits


def usual_tolerance(num_classes: int) -> float:
    """Largest entry of the gradient per image at which a fit stops, unless told otherwise."""
    return 1e-5 * min(1.0, VERY_MANY_CLASSES / num_classes)


def fit_logistic(
    data: ProbeData,
    rows: Rows,
    targets: Rows,
    num_classes: int,
    inverse_penalty: float = 1.0,
    *,
    start: LogisticModel | None = None,
    max_iterations: int = 300,
    tolerance: float | None = None,
) -> LogisticModel:
    """Minimise C * sum of cross-entropies + 0.5 * |W|^2, with C = `inverse_penalty`.

    The objective of scikit-learn's LogisticRegression; the bias is free. It is convex, so the
    answer does not depend on the start. Float64; with more than `VERY_MANY_CLASSES` classes
    products are in float32, unless the tolerance is under 1e-7.

    Args:
        data: standardised features; all its columns are read.
        rows: of train.
        targets: (N,) classes of all images of `data`.
        num_classes: outputs.
        inverse_penalty: C.
        start: a solution for a near C, to begin from.
        max_iterations: of L-BFGS.
        tolerance: largest entry of the gradient per image at which it stops; by default 1e-5, and
            less with more than 200 classes, whose gradients are smaller.
    """
    tolerance = usual_tolerance(num_classes) if tolerance is None else tolerance
    columns = tuple(data.widths())
    width = sum(data.widths().values())
    parameters = torch.zeros(width + 1, num_classes, dtype=torch.float64, device=data.device)
    if start is not None:
        parameters.copy_(torch.cat([start.weight, start.bias.unsqueeze(0)]))
    images = len(rows)
    penalty = 1 / (inverse_penalty * images)

    def penalised(entropy: Objective) -> Objective:
        """The mean over images, with the penalty."""

        def value(at: Tensor) -> tuple[Tensor, Tensor]:
            total, gradient = entropy(at)
            gradient = gradient / images
            gradient[:-1] += penalty * at[:-1]
            return total / images + 0.5 * penalty * at[:-1].square().sum(), gradient

        return value

    bounds = (max_iterations, tolerance)
    if num_classes <= VERY_MANY_CLASSES or tolerance < FINEST:
        entropy = _FewClasses(data, rows, targets)
        steps = _minimise(penalised(entropy), parameters, None, *bounds)
    else:
        root = whitening(data, rows, num_classes, penalty)
        with onednn_products(data.device.type == "cpu"), pool_for(data.device) as pool:
            many = ManyClasses(data, rows, targets, pool)
            steps = _minimise(penalised(many), parameters, root, *bounds)
    return LogisticModel(columns, parameters[:-1], parameters[-1], steps)


class _FewClasses:
    """Sum of cross-entropies over images, and its gradient, in float64."""

    def __init__(self, data: ProbeData, rows: Rows, targets: Rows) -> None:
        self.data, self.rows, self.targets = data, rows, targets
        # L-BFGS reads everything a few hundred times: keep it while it is under 1 GB.
        size = 8 * len(rows) * sum(data.widths().values())
        self._kept = list(self._chunks()) if size < 1 << 30 else None

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for chunk, batch in self.data.batches(self.rows, 16384):
            features = torch.cat([batch[name] for name in self.data.widths()], dim=1).double()
            yield features, torch.from_numpy(self.targets[chunk]).to(features.device)

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = parameters[:-1], parameters[-1]
        total: Tensor = torch.zeros((), dtype=torch.float64, device=weight.device)
        gradient = torch.zeros_like(parameters)
        for features, truth in self._kept or self._chunks():
            entropy, error = _entropy(features @ weight + bias, truth)
            total = total + entropy
            gradient[:-1] += features.t() @ error
            gradient[-1] += error.sum(dim=0)
        return total, gradient


class _Near(Exception):
    """The gradient is small enough."""


def _minimise(
    objective: Objective,
    parameters: Tensor,
    root: Tensor | None,
    max_iterations: int,
    tolerance: float,
) -> int:
    """Move parameters to the minimum by L-BFGS. Returns its iterations.

    Args:
        objective: value and gradient at parameters.
        parameters: where to begin; changed in place.
        root: symmetric; L-BFGS moves U instead, with parameters = root U.
        max_iterations: of L-BFGS.
        tolerance: largest entry of the gradient at which it stops.
    """
    variables = parameters.clone() if root is None else torch.linalg.solve(root, parameters)
    variables.requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [variables],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        history_size=20,
        tolerance_grad=tolerance if root is None else 0.0,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def point() -> Tensor:
        at = variables.detach()
        return at if root is None else root @ at

    def closure() -> Tensor:
        value, gradient = objective(point())
        if root is not None:
            if float(gradient.abs().max()) <= tolerance:
                raise _Near
            gradient = root @ gradient
        variables.grad = gradient
        return value

    with contextlib.suppress(_Near):
        optimiser.step(closure)
    parameters.copy_(point())
    return int(optimiser.state[variables].get("n_iter", 0))
