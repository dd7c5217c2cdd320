"""What a trial of a race is worth: kNN or two-view retrieval on images held out of train.

Only images of train are read: val and test take no part in a choice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convit_ssl import adapters
from convit_ssl.adapters.views import plain_view
from convit_ssl.data import ImageFiles, open_dataset
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.engines.callbacks.feature_checks import Watch
from convit_ssl.engines.callbacks.feature_references import (
    PIXELS,
    UNTRAINED,
    Sides,
    groups_of,
    measure_knn,
    with_transform,
)
from convit_ssl.engines.options.plan import Plan, division_spec
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.tokens import pixels_of
from convit_ssl.evaluation.label_free.scores import two_view_hits
from convit_ssl.evaluation.label_free.views import RandomViews, ViewPixels, view_features
from convit_ssl.evaluation.paired import Difference, Predictions, compare
from convit_ssl.evaluation.probes.splits import hold_out
from convit_ssl.models.trunks import build_trunk

Rows = np.ndarray[Any, Any]
LABELS, RETRIEVAL = "labels", "retrieval"
NEIGHBOURS = 20
# Images that are held out: a fifth, where these are enough, and never more than half.
HELD_OUT, ENOUGH, MOST_HELD = 0.2, 200, 2000
MOST_VOTING = 20_000
MOST_VIEWED = 500
FEWEST_LABELLED = 20  # held out, for a figure that can rank anything
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
Network = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Score:
    """What the judge says of one network.

    Attributes:
        value: 0..1; balanced accuracy where classes are uneven.
        hits: (N,) whether each held-out image was right.
        truth: (N,) classes, or zeros for retrieval.
    """

    value: float
    hits: Rows
    truth: Rows


class Judge:
    """Divides the images of train and scores networks on the part that no trial learns from.

    Args:
        plan: of the whole training of any candidate.
        wanted: ``auto.judge``.

    Attributes:
        by: `LABELS` or `RETRIEVAL`.
        why: the reason for it.
        held: rows of train that are held out.
        learned: the other rows.

    Raises:
        UserError: labels are asked for and there are not enough.
    """

    def __init__(self, plan: Plan, wanted: str) -> None:
        images = opened(plan)
        targets = np.asarray(images.targets)
        groups = groups_of(_tree(plan), images, np.arange(len(images)))
        share = held_share(len(images))
        self.by, self.why = LABELS, "the images of train have labels"
        problem = None if wanted == RETRIEVAL else _without_labels(targets, images.classes)
        held: Rows | None = None
        if wanted != RETRIEVAL and problem is None:
            known = targets >= 0
            held = hold_out(targets, share, 0, groups)[1]
            if len(held) < min(FEWEST_LABELLED, int(known.sum()) // 4):
                problem = f"only {len(held)} labelled images could be held out"
        if problem is not None and wanted == LABELS:
            raise UserError(
                f"auto.judge=labels: {problem}; leave auto.judge out, and the race is judged "
                "without labels"
            )
        if held is None or problem is not None:
            self.by = RETRIEVAL
            self.why = problem or "as auto.judge says"
            held = _some_groups(len(images), share, groups)
        self.held = held
        self.learned = np.setdiff1d(np.arange(len(images)), held)
        if self.by == LABELS and len(self.held) > MOST_HELD:
            self.held = np.sort(np.random.default_rng(0).permutation(self.held)[:MOST_HELD])
        self.groups = None if groups is None else groups[self.held]

    @cached_property
    def name(self) -> str:
        """What the figure is, in words."""
        return f"weighted {NEIGHBOURS}-NN" if self.by == LABELS else "two-view retrieval"

    @property
    def asked(self) -> int:
        """Images that the figure is about."""
        return len(self.held) if self.by == LABELS else min(len(self.held), MOST_VIEWED)

    def score(self, plan: Plan, network: nn.Module) -> Score:
        """The figure of a trained network.

        Args:
            plan: of the training that the network is a trial of.
            network: its trunk.
        """
        watch = _watch(plan)
        trunk = network.to(watch.device).eval()
        if self.by == LABELS:
            images = opened(plan)
            return self._neighbours(watch, trunk, images)
        return self._retrieved(watch, _vectors(watch, trunk), opened(plan))

    def references(self, plan: Plan) -> dict[str, Score]:
        """The figures of raw pixels and of the untrained network."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.settings.seed)
            untrained = build_trunk(plan.trunk)
        found = {UNTRAINED: self.score(plan, untrained)}
        images, watch = opened(plan), _watch(plan)
        if self.by == LABELS:
            flat = with_transform(images, pixels_of(images))
            found[PIXELS] = self._neighbours(watch, nn.Flatten(1), flat)
        else:
            found[PIXELS] = self._retrieved(watch, ViewPixels(), images)
        return found

    def difference(self, first: Score, second: Score) -> Difference | None:
        """The paired difference of two scores; None where other images could be read."""
        if len(first.hits) != len(second.hits):
            return None
        correct = {"first": first.hits, "second": second.hits}
        groups = self.groups if self.groups is not None and len(self.groups) == len(first.hits) \
            else None  # fmt: skip
        predictions = Predictions(first.truth, correct, groups)
        return compare(predictions, "first", "second", predictions.uneven)

    def _neighbours(self, watch: Watch, network: nn.Module, images: ImageFiles) -> Score:
        voting = self.learned
        if len(voting) > MOST_VOTING:
            voting = np.sort(np.random.default_rng(0).permutation(voting)[:MOST_VOTING])
        bank, rows = watch.reader.features(network, images, voting)
        val, val_rows = watch.reader.features(network, images, self.held)
        sides = Sides(images, rows, images, val_rows)
        found = measure_knn(bank, val, sides, NEIGHBOURS, watch.device, "cosine")
        hits = found.predictions == found.truth
        predictions = Predictions(found.truth, {"network": hits})
        return Score(predictions.score("network", predictions.uneven), hits, found.truth)

    def _retrieved(self, watch: Watch, network: Network, images: ImageFiles) -> Score:
        plain: Any = plain_view(watch.options)
        native = images.reading.native
        grey = not native and images.is_grey()
        seen = with_transform(images, RandomViews(plain.size, plain.mean, plain.std, grey, native))
        views = view_features([network], seen, self.held[:MOST_VIEWED].tolist(), watch.device)[0]
        hits = two_view_hits(views[:, 0], views[:, 1]).numpy()
        return Score(float(hits.mean()), hits, np.zeros(len(hits), int))


def held_share(images: int) -> float:
    """The share of the images that is held out."""
    return min(max(HELD_OUT, ENOUGH / images), 0.5)


def opened(plan: Plan) -> ImageFiles:
    """The images that a plan trains on, as evaluation sees them."""
    tree = _tree(plan)
    return open_dataset(
        tree.data.name,
        tree.data_dir,
        "train",
        plain_view(tree),
        subset=tree.data.subset,
        max_corrupt=tree.data.max_corrupt,
        replace=False,
        reading=Reading.of(tree.data),
        division=division_spec(tree),
    )


def _tree(plan: Plan) -> Any:
    adapters.register()
    from vissl.config import AttrDict

    return AttrDict(plan.options)


def _watch(plan: Plan) -> Watch:
    device = torch.device("cuda" if plan.placement.device == "cuda" else "cpu")
    dtype = PRECISIONS.get(plan.settings.run.precision)

    def autocast() -> contextlib.AbstractContextManager[Any]:
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=dtype)

    return Watch(_tree(plan), device, autocast)


def _vectors(watch: Watch, network: nn.Module) -> Network:
    def vectors(batch: Tensor) -> Tensor:
        with watch.autocast():
            made = network(batch)
        found: Tensor = made[0] if isinstance(made, list) else made
        return found

    return vectors


def _without_labels(targets: Rows, classes: Any) -> str | None:
    """Why labels cannot judge; None where they can."""
    known, counts = np.unique(targets[targets >= 0], return_counts=True)
    if len(known) == 0:
        return "the images of train have no labels"
    if len(known) < 2:
        return f"all labelled images are of one class ({classes[int(known[0])]})"
    if int((counts >= 2).sum()) < 2:
        return "fewer than two classes have two labelled images"
    return None


def _some_groups(images: int, share: float, groups: Rows | None) -> Rows:
    """Some of the rows, whole groups where there are any."""
    units = np.arange(images)
    if groups is not None:
        units = np.unique(np.where(groups < 0, groups.max(initial=0) + 1 + units, groups),
                          return_inverse=True)[1]  # fmt: skip
    order = np.random.default_rng(0).permutation(int(units.max()) + 1)
    held: Rows = np.flatnonzero(np.isin(units, order[: max(1, round(share * len(order)))]))
    return held
