"""The linear probe: a sweep of heads chosen on held-out images of train, one figure on val."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.evaluation.accuracy import (
    Accuracy,
    ClassFigures,
    align_targets,
    class_figures,
    measure,
)
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.probes.heads import Choice, Head, LinearHeads
from convit_ssl.evaluation.probes.logistic import LogisticModel
from convit_ssl.evaluation.probes.logistic_probe import INVERSE_PENALTIES, fit_chosen
from convit_ssl.evaluation.probes.splits import ProbeData, Rows, hold_out
from convit_ssl.evaluation.probes.sweep import Sweep, Training, train_sweep

# DINOv2's grid (dinov2/eval/linear.py), per batch of 256.
LEARNING_RATES = (
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
)  # fmt: skip

Stage = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LinearConfig:
    """How the probe is trained and chosen.

    Attributes:
        learning_rates: of the sweep, per batch of 256.
        batch_size: images in a step.
        epochs: passes over train, within the next two bounds.
        min_iterations: steps at least, for a handful of images.
        max_iterations: steps at most; DINOv2's number.
        momentum: of SGD; there is no weight decay.
        hold_out: share of each class of train that chooses the head.
        seed: of the held-out part and the order of images.
        standardise: shift and scale each channel by its mean and spread over train (the
            BatchNorm without parameters of MAE's probe). The learning rates then mean the same
            for every trunk, and for raw pixels.
        refit: train the chosen head again on all of train, the held-out part included.
        logistic: also fit logistic regression.
        inverse_penalties: C of logistic regression, chosen on the same held-out part.
    """

    learning_rates: tuple[float, ...] = LEARNING_RATES
    batch_size: int = 256
    epochs: int = 100
    min_iterations: int = 2000
    max_iterations: int = 12500
    momentum: float = 0.9
    hold_out: float = 0.2
    seed: int = 0
    standardise: bool = True
    refit: bool = True
    logistic: bool = True
    inverse_penalties: tuple[float, ...] = INVERSE_PENALTIES

    def iterations(self, images: int) -> int:
        """Steps for a number of images."""
        steps = self.epochs * max(1, images // self.batch_size)
        return min(max(steps, self.min_iterations), self.max_iterations)


@dataclass(frozen=True)
class LinearResult:
    """The figure on val, and how it came to be.

    Attributes:
        accuracy: of the chosen head on val.
        figures: of each class, of the chosen head on val.
        predictions: (labelled images of val,) classes by the chosen head.
        truth: their true classes, in the numbering of train.
        head: what was chosen.
        held_out: the chosen head's accuracy on the held-out part of train, before the refit.
        sweep: each head's accuracy on the held-out part.
        logistic: accuracy of logistic regression on val, None where it was not fitted.
        logistic_figures: of each class, of logistic regression.
        inverse_penalty: its C, chosen on the held-out part.
        images: labelled images of train, of these held out, and of val.
        config: settings.
    """

    accuracy: Accuracy
    figures: ClassFigures
    predictions: Rows
    truth: Rows
    head: Head
    held_out: float
    sweep: dict[Head, float]
    logistic: Accuracy | None
    logistic_figures: ClassFigures | None
    inverse_penalty: float | None
    images: dict[str, int]
    config: LinearConfig

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        logistic = None
        if self.logistic is not None and self.logistic_figures is not None:
            logistic = {
                **self.logistic.as_dict(),
                **self.logistic_figures.as_dict(),
                "inverse_penalty": self.inverse_penalty,
            }
        return {
            **self.accuracy.as_dict(),
            **self.figures.as_dict(),
            "head": asdict(self.head),
            "held_out_accuracy": self.held_out,
            "sweep": [{**asdict(head), "held_out": score} for head, score in self.sweep.items()],
            "logistic": logistic,
            "images": self.images,
            "config": asdict(self.config),
            "notes": self.figures.notes(),
        }


def feature_choices(columns: Sequence[str]) -> tuple[Choice, ...]:
    """{last class token, last two} x {without, with the mean patch token}, as far as they exist.

    Features without class tokens (raw pixels) are one choice, all columns.
    """
    tokens = [name for name in ("class_last1", "class_last2") if name in columns]
    mean = tuple(name for name in ("patch_mean_last1",) if name in columns)
    if not tokens:
        return (tuple(columns),)
    depths = [tuple(tokens[: n + 1]) for n in range(len(tokens))]
    return tuple(dict.fromkeys(d + extra for d, extra in itertools.product(depths, ((), mean))))


def evaluate_linear(
    train: FeatureSet,
    val: FeatureSet,
    config: LinearConfig | None = None,
    choices: Sequence[Choice] | None = None,
    device: torch.device | str | None = None,
    progress: Stage | None = None,
    groups: Rows | None = None,
) -> LinearResult:
    """Train a sweep of linear heads on train's features and measure the best on val.

    Val is read once, by the head that was chosen without it. In a torch.distributed group
    rank 0 does the work and all get the result.

    Args:
        train: features to fit and choose by.
        val: features to measure on, of the same model.
        config: settings.
        choices: sets of columns to try; `feature_choices` by default.
        device: where heads are trained.
        progress: called with (stage, done, all).
        groups: (N,) of train's rows, held out whole for the choice; None without groups.

    Raises:
        UserError: no labels, one class only, nothing to hold out, or classes in val that
            train does not have.
    """
    result = None
    if processes.rank() == 0:
        device = torch.device(device) if device is not None else processes.default_device()
        result = _Probe(
            train, val, config or LinearConfig(), choices, device, progress, groups
        ).run()
    result = processes.broadcast(result)
    assert result is not None
    return result


class _Probe:
    def __init__(
        self,
        train: FeatureSet,
        val: FeatureSet,
        config: LinearConfig,
        choices: Sequence[Choice] | None,
        device: torch.device,
        progress: Stage | None,
        groups: Rows | None = None,
    ) -> None:
        self.train, self.val, self.config = train, val, config
        self.device, self.progress = device, progress
        self.val_targets = align_targets(train, val)
        self.rows, self.val_rows = train.labelled(), val.labelled()
        if len(np.unique(train.targets[self.rows])) < 2:
            raise UserError(
                "train has labelled images of only one class; a probe needs at least two"
            )
        self.choices = tuple(choices or feature_choices(tuple(train.columns)))
        self.fit_rows, self.held_rows = hold_out(
            train.targets, config.hold_out, config.seed, groups
        )

    def run(self) -> LinearResult:
        """Sweep, choose, refit, measure."""
        sweep, chosen_heads = self._sweep()
        accuracies, losses = sweep
        best = min(range(len(losses)), key=lambda i: (-accuracies[i], losses[i], i))
        head = chosen_heads[best]
        predicted, margins = self._predict(head)
        truth = self.val_targets[self.val_rows]
        logistic, penalty = self._logistic() if self.config.logistic else (None, None)
        return LinearResult(
            measure(predicted, truth),
            self._figures(predicted, margins),
            predicted,
            truth,
            head,
            accuracies[best],
            dict(zip(chosen_heads, accuracies, strict=True)),
            None if logistic is None else measure(logistic[0], truth),
            None if logistic is None else self._figures(*logistic),
            penalty,
            {
                "train": len(self.rows),
                "held_out": len(self.held_rows),
                "val": len(self.val_rows),
            },
            self.config,
        )

    def _sweep(self) -> tuple[tuple[list[float], list[float]], list[Head]]:
        # Few features and small steps first, so that ties go to the simpler head.
        heads = [Head(c, rate) for c in self.choices for rate in self.config.learning_rates]
        columns = tuple(dict.fromkeys(name for choice in self.choices for name in choice))
        data = self._data(columns, self.fit_rows)
        trained = self._train(heads, data, self.fit_rows, "sweep")
        accuracies, losses = trained.score(data, self.held_rows, self.train.targets)
        return (accuracies.tolist(), losses.nan_to_num(nan=torch.inf).tolist()), heads

    def _predict(self, head: Head) -> tuple[Rows, Rows | None]:
        """Classes of val by one head, trained again, and the margins of two classes."""
        rows = self.rows if self.config.refit else self.fit_rows
        data = self._data(head.columns, rows)
        ((_, trained),) = self._train([head], data, rows, "refit").parts
        return self._asked(trained, data)

    def _asked(
        self, trained: LinearHeads | LogisticModel, data: ProbeData
    ) -> tuple[Rows, Rows | None]:
        val = data.of(self.val)
        margins = trained.margins(val, self.val_rows) if self.train.num_classes == 2 else None
        return trained.predict(val, self.val_rows), margins

    def _figures(self, predicted: Rows, margins: Rows | None) -> ClassFigures:
        names = self.train.classes or [str(i) for i in range(self.train.num_classes)]
        return class_figures(predicted, self.val_targets[self.val_rows], names, margins)

    def _train(self, heads: list[Head], data: ProbeData, rows: Rows, stage: str) -> Sweep:
        config, progress = self.config, self.progress
        training = Training(
            rows,
            self.train.targets,
            self.train.num_classes,
            iterations=config.iterations(len(rows)),
            least=config.min_iterations,
            largest_rate=max(config.learning_rates),
            batch_size=config.batch_size,
            momentum=config.momentum,
            seed=config.seed,
        )
        return train_sweep(
            heads,
            data,
            training,
            None if progress is None else lambda done, all_: progress(stage, done, all_),
        )

    def _logistic(self) -> tuple[tuple[Rows, Rows | None], float]:
        config, progress = self.config, self.progress
        found = fit_chosen(
            self.train,
            tuple(dict.fromkeys(name for choice in self.choices for name in choice)),
            self.rows,
            self.fit_rows,
            self.held_rows,
            config.inverse_penalties,
            refit=config.refit,
            standardise=config.standardise,
            device=self.device,
            progress=None
            if progress is None
            else lambda done, all_: progress("logistic", done, all_),
        )
        return self._asked(found.model, found.data), found.penalty

    def _data(self, columns: Sequence[str], fit_rows: Rows) -> ProbeData:
        return ProbeData(self.train, columns, fit_rows, self.config.standardise, device=self.device)
