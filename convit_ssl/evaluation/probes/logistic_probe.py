"""Logistic regression on standardised features, its penalty chosen on a held-out part of train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from convit_ssl.evaluation.accuracy import align_targets
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.probes.heads import VERY_MANY_CLASSES
from convit_ssl.evaluation.probes.logistic import LogisticModel, fit_logistic, usual_tolerance
from convit_ssl.evaluation.probes.splits import ProbeData, Rows, hold_out

INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
HOLD_OUT = 0.1
# Of the tolerance, while a penalty is chosen for very many classes: held-out accuracies are within
# some thousandths after half the iterations. The chosen one is then fitted to the end.
CHOOSING = 10.0


@dataclass(frozen=True)
class Chosen:
    """A fitted model with the penalty that was best on the held-out rows.

    Attributes:
        model: fitted.
        data: what it reads, standardised as it was fitted.
        penalty: C.
        held_out: accuracy on the held-out rows before fitting again, 0..1.
    """

    model: LogisticModel
    data: ProbeData
    penalty: float
    held_out: float


@dataclass(frozen=True)
class LogisticProbe:
    """What a probe said of the test: classes (N,), and margins (N,) where there are two."""

    predicted: Rows
    margins: Rows | None
    penalty: float
    held_out: float


def logistic_probe(
    train: FeatureSet, test: FeatureSet, seed: int = 0, groups: Rows | None = None
) -> LogisticProbe:
    """Fit on train, with C chosen on a tenth of it, and classify test.

    Args:
        train: features with labels.
        test: features of the same model; read once.
        seed: of the tenth.
        groups: (N,) of train's rows, which are held out whole.
    """
    rows, tested = train.labelled(), test.labelled()
    align_targets(train, test)  # classes that train does not have are refused
    fit, held = hold_out(train.targets, HOLD_OUT, seed, groups)
    found = fit_chosen(train, tuple(train.columns), rows, fit, held)
    data = found.data.of(test)
    margins = found.model.margins(data, tested) if train.num_classes == 2 else None
    return LogisticProbe(found.model.predict(data, tested), margins, found.penalty, found.held_out)


def fit_chosen(
    train: FeatureSet,
    columns: Sequence[str],
    rows: Rows,
    fit_rows: Rows,
    held_rows: Rows,
    penalties: Sequence[float] = INVERSE_PENALTIES,
    *,
    refit: bool = True,
    standardise: bool = True,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Chosen:
    """Choose C by the accuracy on `held_rows`, the smallest of equals, and fit on `rows`.

    Args:
        train: features with labels.
        columns: the kinds of features to read.
        rows: to fit on at the end, where `refit`.
        fit_rows: to fit on while choosing.
        held_rows: to choose by.
        penalties: values of C.
        refit: otherwise the model of `fit_rows` with the chosen C is kept.
        standardise: features, by the rows that are fitted.
        device: where it is computed.
        progress: called with (penalties tried, all).
    """
    data = ProbeData(train, columns, fit_rows, standardise, device=torch.device(device))
    targets, classes = train.targets, train.num_classes
    model: LogisticModel | None = None
    scores: dict[float, float] = {}
    ordered = sorted(penalties)
    models: dict[float, LogisticModel] = {}
    roughly = CHOOSING * usual_tolerance(classes) if classes > VERY_MANY_CLASSES else None
    for done, penalty in enumerate(ordered):
        model = fit_logistic(
            data, fit_rows, targets, classes, penalty, start=model, tolerance=roughly
        )
        models[penalty] = model
        scores[penalty] = float((model.predict(data, held_rows) == targets[held_rows]).mean())
        if progress is not None:
            progress(done + 1, len(ordered))
    best = max(ordered, key=lambda penalty: (scores[penalty], -penalty))
    if refit:
        data = ProbeData(train, columns, rows, standardise, device=torch.device(device))
    model = fit_logistic(
        data, rows if refit else fit_rows, targets, classes, best, start=models[best]
    )
    return Chosen(model, data, best, scores[best])
