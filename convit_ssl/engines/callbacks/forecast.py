"""What a run's time holds beside its steps: tests of val, evaluations of the features, verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from convit_ssl.engines.callbacks.feature_checks import (
    BANK,
    LEAST_VAL,
    LOOKED_AT,
    LOOKS,
    SAMPLED_FOR,
    VAL_SHARE,
)
from convit_ssl.engines.callbacks.feature_references import BY, LEARNED, TESTED
from convit_ssl.engines.options.testing import passes, test_seconds
from convit_ssl.methods import get_method
from convit_ssl.schema_resolved import Resolved

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


class Measured(NamedTuple):
    """Mean seconds of a test and of an evaluation so far; None before the first."""

    test: float | None = None
    evaluation: float | None = None


NOTHING_YET = Measured()


class BesideSteps(NamedTuple):
    """What is left of a run beside its steps.

    Attributes:
        tests: of val, while labels are learned.
        evaluations: of the features.
        verdict: whether the trained network is compared with its references at the end.
        seconds: that all of these will take, about.
    """

    tests: int
    evaluations: int
    verdict: bool
    seconds: float

    def describe(self) -> str:
        """``with 3 tests of val and the verdict``."""
        parts = [
            f"{count} {word}{'' if count == 1 else 's'}{of}"
            for count, word, of in (
                (self.tests, "test", " of val"),
                (self.evaluations, "evaluation", " of the features"),
            )
            if count
        ]
        parts += ["the verdict"] if self.verdict else []
        return f"with {' and '.join(parts)}" if parts else "no tests or evaluations"


def beside_steps(
    task: ConViTSSLTask, step_seconds: float, measured: Measured = NOTHING_YET
) -> BesideSteps:
    """Tests, evaluations and verdict that are left of a run, and their time.

    What has not been measured yet is counted by its images: an image that is only looked at takes
    `LOOKED_AT` of the time of one that is trained on.

    Args:
        task: that trains.
        step_seconds: of one optimiser step.
        measured: what tests and evaluations have taken so far.
    """
    options, images = task.options, len(task.inputs.train)
    tests, testing = test_seconds(task, step_seconds)
    if measured.test is not None:
        testing = tests * measured.test
    image_seconds = step_seconds / options.optim.batch_size
    labels, named = options.derived.test_model, len(task.inputs.train.classes) > 1
    looked_at = LOOKED_AT
    if labels:  # one view, as in training
        looked_at = 1 / passes(options.method.name)
    done = task.iteration // max(task.steps_per_epoch, 1)
    evaluations, sampled = _evaluations(options, images, done, named)
    seconds = evaluations * (
        sampled * image_seconds * looked_at if measured.evaluation is None else measured.evaluation
    )
    verdict = named and options.watch.every != 0
    if labels:
        frozen = get_method(options.method.name).frozen_trunk
        verdict = verdict and not frozen and not options.run.fsdp
    if verdict:
        seconds += _verdict_images(options, images) * image_seconds * looked_at
    return BesideSteps(tests, evaluations, verdict, testing + seconds)


def _evaluations(options: Resolved, images: int, done: int, named: bool) -> tuple[int, int]:
    """Evaluations that are left, and the images of each, as `Watch` will choose them.

    `Watch` opens its images when it first needs them, so val's are not counted here.

    Args:
        options: the experiment's options.
        images: of train.
        done: epochs.
        named: whether the images have classes, so that one evaluation comes early.
    """
    every, epochs = options.watch.every, int(options.optim.epochs)
    if every == 0 or (every is None and options.derived.test_model):
        return 0, 0
    allowed = epochs * images * LOOKED_AT
    sample = allowed / max(epochs / every if every else min(SAMPLED_FOR, epochs), 1)
    least, most = BANK
    bank = min(max(int(sample * (1 - VAL_SHARE)), least), most, images)
    sampled = bank + min(max(int(sample * VAL_SHARE), LEAST_VAL), images)
    if options.watch.knn_images is not None:
        sampled = int(options.watch.knn_images) + sampled - bank
    early = every is None and named and epochs > BY
    if every is None:
        count = max(int(allowed / sampled) - early, 2)
        every = math.ceil(epochs / min(count, LOOKS - early, epochs))
    first = BY if early and every > 1 else epochs
    left = sum(e % every == 0 or e in (first, epochs) for e in range(done + 1, epochs + 1))
    return left, sampled


def _verdict_images(options: Resolved, images: int) -> int:
    """Forward passes of the verdict: the network and its untrained self, on train and test."""
    allowed = options.optim.epochs * images * LOOKED_AT
    learned, tested = (
        min(max(int(allowed * share), least), most, images)
        for share, (least, most) in ((0.6, LEARNED), (0.3, TESTED))
    )
    return 2 * tested + (1 if options.derived.test_model else 2) * learned
