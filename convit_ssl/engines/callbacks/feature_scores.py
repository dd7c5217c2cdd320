"""Label-free scores while a run trains, where its best checkpoint is chosen by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from convit_ssl.engines.callbacks.feature_references import KNN, with_transform
from convit_ssl.evaluation.label_free.scores import PASSED, SCORES, label_free_score
from convit_ssl.evaluation.label_free.views import RandomViews, view_features

if TYPE_CHECKING:
    from convit_ssl.engines.callbacks.feature_checks import Watch

CHOICES = (KNN, *SCORES)
VIEWED = 200  # images in several random views


def unproven(name: str) -> str | None:
    """What to say of a score that has not been shown to rank networks as their accuracy does."""
    if name == KNN or name in PASSED:
        return None
    return (
        f"watch.best_by={name}: this score has not been shown to rank networks by their accuracy "
        f"(shown so far: {', '.join(PASSED) or 'none'}), so best.torch may not be the best "
        "checkpoint. With labels for a few images of each class, leave watch.best_by out"
    )


def score_of(watch: Watch, trunk: nn.Module, sample: Tensor, name: str) -> float | None:
    """One score of a trunk in evaluation mode; None where the trunk has none, as of gates.

    Args:
        watch: whose images are read.
        trunk: the network.
        sample: (N, D) features of images as they are.
        name: one of `SCORES`.
    """
    views = _views(watch, trunk) if SCORES[name].of_views else None
    return label_free_score(name, trunk, sample, views)


def _views(watch: Watch, trunk: nn.Module) -> Tensor:
    """(images, views, D) of the same random views every time."""
    bank = watch.bank
    plain: Any = bank.transform
    native = bank.reading.native
    grey = not native and bank.is_grey()
    images = with_transform(bank, RandomViews(plain.size, plain.mean, plain.std, grey, native))
    chosen = np.random.default_rng(0).permutation(len(bank))[:VIEWED].tolist()

    def vectors(batch: Tensor) -> Tensor:
        with watch.autocast():
            made = trunk(batch)
        found: Tensor = made[0] if isinstance(made, list) else made
        return found

    return view_features([vectors], images, chosen, watch.device)[0]
