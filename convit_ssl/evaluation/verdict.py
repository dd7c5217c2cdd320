"""The answer to "did it help on my images?", from paired comparisons with references.

"Better than its references" is said only where the network beats each of them, each at the 95 %
level. No correction for several references is needed then: the claim is wrong only if the
comparison with one particular reference is (an intersection-union test: Berger, Technometrics
24, 1982). "Worse than" one of several is another kind of claim, and takes Holm's correction.
Intervals are not corrected, so one may lie below 0 where "worse" is not said; `doubt` says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convit_ssl.evaluation.paired import LEVEL, Difference, Predictions, compare

# No test set more than this many times as large is suggested: the difference is too small for that.
WITHIN_REACH = 10


@dataclass(frozen=True)
class Verdict:
    """What a comparison with references came to.

    Attributes:
        outcome: better, not better, worse, or no references.
        text: one sentence.
        metric: accuracy or balanced accuracy.
        probe: kNN or linear probe.
        differences: by reference.
        advice: what to try next, from what was seen.
        labels: labelled images that the probe learned from.
        tested: images of the test, and groups where they were kept together.
        saturated: a reference is right on every image of the test, so nothing can beat it there.
        score: of the network, by `metric`; None where only differences are known.
    """

    outcome: str
    text: str
    metric: str
    probe: str
    differences: Mapping[str, Difference]
    labels: int
    tested: str
    advice: Sequence[str] = field(default=())
    saturated: bool = False
    score: float | None = None

    def lines(self) -> list[str]:
        """For a screen: the sentence, the other references, the reason, and what to try."""
        closest = closest_reference(self.differences)
        lines = [self.text]
        for name, found in self.differences.items():
            if name != closest:
                weak = doubt(self.differences, name)
                lines.append(f"  against {name}: {found.in_points()} points{weak}")
        lines += [f"  why: {self.why}"] if self.why else []
        return lines + [f"  next: {text}" for text in self.advice]

    @property
    def why(self) -> str:
        """Why the outcome is "not better" or "worse"; "" if the differences say it all."""
        name = closest_reference(
            {name: one for name, one in self.differences.items() if not one.is_better}
        )
        if name is None:
            return ""
        one = self.differences[name]
        if one.units == 1:
            one_unit = "group" if " group" in self.tested else "image"
            return (
                f"one test {one_unit} tells nothing about others; test on more, with --folds "
                "(in training data.folds) in place of a hold-out"
            )
        needed = units_needed(one)
        beyond_zero = one.low > 0 or one.high < 0
        if needed is not None or (beyond_zero and not one.is_worse):
            unit = "groups" if " group" in self.tested else "test images"
            few = f"{one.units:,} {unit} are too few to tell {100 * one.value:+.1f} points from 0"
            return few + (f"; about {needed:,} would do if the difference stays" if needed else "")
        scored = "scored higher" if one.is_worse else "scored as high"
        if "untrained" in name:
            return f"training has not helped here: random weights {scored}"
        gained = [found for other, found in self.differences.items() if "untrained" in other]
        if gained and gained[0].is_better:
            points = f"{100 * gained[0].value:.1f} points"
            return f"training gained {points} over random weights, but {name} {scored}"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "outcome": self.outcome,
            "text": self.text,
            "metric": self.metric,
            **({} if self.score is None else {"score": self.score}),
            "probe": self.probe,
            "against": {name: found.as_dict() for name, found in self.differences.items()},
            "labels": self.labels,
            "tested": self.tested,
            "why": self.why,
            "advice": list(self.advice),
        }


def units_needed(found: Difference) -> int | None:
    """Images (or groups) at which a positive difference's interval would end above 0.

    The interval narrows with the square root of their number. None where the difference is not
    positive, already shown, or would take more than `WITHIN_REACH` times as many.
    """
    if found.value <= 0 or found.is_better:
        return None
    times = ((found.high - found.low) / 2 / found.value) ** 2
    if not 1 < times <= WITHIN_REACH:
        return None
    digits = max(0, math.floor(math.log10(times * found.units)) - 1)
    return int(math.ceil(times * found.units / 10**digits) * 10**digits)


def closest_reference(differences: Mapping[str, Difference]) -> str | None:
    """The reference that the network is furthest from beating."""
    return min(differences, key=lambda name: differences[name].value, default=None)


def judge(
    predictions: Predictions,
    name: str,
    references: Sequence[str],
    labels: int,
    probe: str = "kNN",
    seed: int = 0,
) -> Verdict:
    """Compare a network with each of its references.

    The score is fixed beforehand by the sizes of the classes: balanced accuracy where the
    largest class of the test has more than 1.5 times the images of the smallest.

    Args:
        predictions: of the network and all references, on the same images.
        name: the network.
        references: what it has to beat.
        labels: labelled images that the probe learned from.
        probe: for the text.
        seed: of the resampling.
    """
    balanced = predictions.uneven
    metric = "balanced accuracy" if balanced else "accuracy"
    found = {other: compare(predictions, name, other, balanced, seed) for other in references}
    tested = describe_test(predictions)
    outcome, text = sentence(found, metric, labels, tested)
    saturated = any(predictions.score(other, balanced) == 1 for other in references)
    score = predictions.score(name, balanced)
    return Verdict(outcome, text, metric, probe, found, labels, tested, (), saturated, score)


def describe_test(predictions: Predictions) -> str:
    """What the interval is about, in words."""
    images = f"{len(predictions.truth):,} images"
    if predictions.groups is not None:
        count = int(predictions.units().max()) + 1
        images += f" in {count:,} group{'s' * (count != 1)}"
    if predictions.folds is not None:
        images += f", {len(set(predictions.folds.tolist()))} folds"
    return images


def sentence(
    found: Mapping[str, Difference], metric: str, labels: int, tested: str
) -> tuple[str, str]:
    """The outcome (see `Verdict`) and a sentence on a network's differences from references.

    Args:
        found: by reference.
        metric: accuracy or balanced accuracy.
        labels: labelled images that were learned from.
        tested: what it was tested on; see `describe_test`.
    """
    where = f"from {labels:,} labels, tested on {tested}"
    closest = closest_reference(found)
    if closest is None:
        return "no references", f"nothing to compare with ({where}); add --references"
    nearest = found[closest]
    points = f"{metric}, {where}"
    others = "each of its references" if len(found) > 1 else closest
    if all(one.is_better for one in found.values()):
        low, high = 100 * nearest.low, 100 * nearest.high
        against = f", against {closest}" if len(found) > 1 else ""
        return (
            "better",
            f"better than {others}: by {100 * nearest.value:.1f} points of {metric} or more "
            f"(95 % interval {low:.1f} to {high:.1f}{against}), {where}",
        )
    worse = list(_worse(found))
    if worse:
        name = min(worse, key=lambda one: found[one].value)
        return "worse", f"worse than {name}: {found[name].in_points()} points of {points}"
    equal = [name for name, one in found.items() if not one.is_better]
    name = min(equal, key=lambda one: found[one].value)
    return (
        "not better",
        f"not better than {name}: {found[name].in_points()} points of {points}{doubt(found, name)}",
    )


def doubt(found: Mapping[str, Difference], name: str) -> str:
    """Why an interval without 0 is called neither better nor worse; else nothing.

    Args:
        found: by reference.
        name: the reference.
    """
    one = found[name]
    if one.low > 0 and not one.is_better:
        return f"; weak evidence that it is better (p = {one.p_value:.2g})"
    if one.high >= 0 or name in _worse(found):
        return ""
    weak = f"; weak evidence that it is worse (p = {one.p_value:.2g}"
    if len(found) == 1:
        return f"{weak})"
    adjusted = _adjusted(found)[name]
    return (
        f"{weak}, or {adjusted:.2g} corrected for {len(found)} references; the interval is not "
        f"corrected)"
    )


def _worse(found: Mapping[str, Difference]) -> list[str]:
    """References that are better than the network, with Holm's correction for their number."""
    adjusted = _adjusted(found)
    return [name for name, one in found.items() if one.is_worse and adjusted[name] <= 1 - LEVEL]


def _adjusted(found: Mapping[str, Difference]) -> dict[str, float]:
    """P-values with Holm's correction (Scandinavian Journal of Statistics 6, 1979)."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for position, name in enumerate(sorted(found, key=lambda one: found[one].p_value)):
        largest = max(largest, min(1.0, (len(found) - position) * found[name].p_value))
        adjusted[name] = largest
    return adjusted
