"""Evaluators: named functions of the features of train and val, those of plugins among them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.methods.collapse import effective_rank, feature_std

Evaluator = Callable[[FeatureSet, FeatureSet], Mapping[str, float]]
EVALUATORS: dict[str, Evaluator] = {}
SAMPLE = 4096  # rows that a singular value decomposition is computed of


def register_evaluator(name: str) -> Callable[[Evaluator], Evaluator]:
    """Make a function known as ``convit-ssl evaluate RUN --with NAME``.

    It gets the features of train and of val (`FeatureSet`: `features` (N, D), `targets` (N,),
    `paths`, `classes`) and returns figures by name.

    Raises:
        UserError: another module has an evaluator of this name.
    """

    def register(evaluator: Evaluator) -> Evaluator:
        known = EVALUATORS.get(name)
        if known is not None and known.__module__ != evaluator.__module__:
            raise UserError(f"there are two evaluators named {name!r}; rename one")
        EVALUATORS[name] = evaluator
        return evaluator

    return register


def get_evaluator(name: str) -> Evaluator:
    """The evaluator of a name.

    Raises:
        UserError: there is none.
    """
    if name not in EVALUATORS:
        from convit_ssl import plugins

        near = difflib.get_close_matches(name, EVALUATORS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"unknown evaluator {name!r}{hint} (available: {', '.join(EVALUATORS)}; a plugin adds "
            f"others, with --plugins){plugins.advice()}"
        )
    return EVALUATORS[name]


def evaluate(name: str, train: FeatureSet, val: FeatureSet) -> dict[str, float]:
    """The figures of an evaluator.

    Args:
        name: of the evaluator.
        train: features of the training images.
        val: features of the test images.

    Raises:
        UserError: there is no such evaluator, or it returns something other than figures by name.
    """
    found = get_evaluator(name)(train, val)
    try:
        figures = {str(key): float(value) for key, value in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"evaluator {name} returns {type(found).__name__}; it must return a dictionary of "
            "metrics, such as {'purity': 0.9}"
        ) from None
    wrong = [key for key, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise UserError(f"evaluator {name}: {', '.join(wrong)} is not a finite number")
    return figures


@register_evaluator("rank")
def rank(train: FeatureSet, val: FeatureSet) -> dict[str, float]:
    """RankMe (arXiv:2210.02885) and the spread of the features of val; they need no labels."""
    sample = torch.tensor(np.asarray(val.features[:SAMPLE])).float()
    return {"rankme": effective_rank(sample), "feature_std": feature_std(sample)}
