"""Paired comparisons: right coverage, groups that count once, and claims that are kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from convit_ssl.errors import UserError
from convit_ssl.evaluation.paired import (
    Difference,
    Predictions,
    compare,
    over_seeds,
    sign_flip_p,
)
from convit_ssl.evaluation.verdict import Verdict, doubt, judge, sentence, units_needed


def drawn(
    images: int, ours: float, other: float, seed: int, groups: np.ndarray | None = None
) -> Predictions:
    draw = np.random.default_rng(seed)
    truth = np.arange(images) % 2
    hard = draw.random(images)  # shared: what is hard for one is hard for the other
    correct = {
        name: (hard + 0.3 * draw.random(images)) < share * 1.3
        for name, share in (("ours", ours), ("pixels", other))
    }
    return Predictions(truth, correct, groups)


def test_single_images_are_mcnemars_exact_test() -> None:
    gains = np.array([1.0] * 15 + [-1.0] * 4 + [0.0] * 80)
    assert sign_flip_p(gains) == pytest.approx(stats.binomtest(15, 19).pvalue)
    assert sign_flip_p(np.zeros(9)) == 1.0


def test_a_few_uneven_units_are_all_tried() -> None:
    gains = np.array([0.5, 0.3, 0.2, 0.15, 0.1])
    assert sign_flip_p(gains) == pytest.approx(2 / 2**5)
    many = np.random.default_rng(0).normal(0.4, 1.0, 40)
    assert sign_flip_p(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.01)


def test_the_interval_of_single_images_is_that_of_the_normal_one() -> None:
    predictions = drawn(2000, 0.8, 0.7, 0)
    found = compare(predictions, "ours", "pixels", balanced=False)
    gain = predictions.correct["ours"].astype(float) - predictions.correct["pixels"]
    half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
    assert found.value == pytest.approx(gain.mean())
    assert found.low == pytest.approx(gain.mean() - half, abs=0.002)
    assert found.high == pytest.approx(gain.mean() + half, abs=0.002)


def test_groups_count_once() -> None:
    """Ten patients of fifty alike images are ten observations, not five hundred."""
    draw = np.random.default_rng(1)
    groups = np.repeat(np.arange(10), 50)
    favour = draw.normal(0.05, 0.2, 10)[groups]
    base = draw.random(500) < 0.6
    ours = draw.random(500) < np.clip(0.6 + favour, 0, 1)
    correct = {"ours": ours, "pixels": base}
    truth = np.arange(500) % 2
    single = compare(Predictions(truth, correct), "ours", "pixels", False)
    whole = compare(Predictions(truth, correct, groups), "ours", "pixels", False)
    assert whole.units == 10 and single.units == 500
    assert whole.value == pytest.approx(single.value)
    assert whole.high - whole.low > 1.5 * (single.high - single.low)


@pytest.mark.parametrize("size", [1, 10])
def test_intervals_cover_and_no_difference_is_seldom_called_one(size: int) -> None:
    """Of two equal classifiers, at most one in twenty comparisons claims a difference."""
    covered = claims = 0
    tries = 150
    for seed in range(tries):
        draw = np.random.default_rng(seed)
        groups = np.repeat(np.arange(15), size) if size > 1 else None
        images = 15 * size if size > 1 else 150
        shift = (draw.normal(0, 0.15, 15)[groups] if size > 1 else 0.0) * np.ones(images)
        correct = {
            "ours": draw.random(images) < np.clip(0.7 + shift, 0, 1),
            "pixels": draw.random(images) < np.clip(0.7 - shift, 0, 1),
        }
        truth = draw.integers(0, 2, images)
        found = compare(Predictions(truth, correct, groups), "ours", "pixels", False, seed)
        covered += found.low <= 0 <= found.high
        claims += found.is_better or found.is_worse
    assert covered >= 0.91 * tries
    assert claims <= 0.08 * tries


def test_uneven_classes_count_alike() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    majority = truth == 0
    ours = np.concatenate([np.arange(90) % 10 > 1, np.ones(10, bool)])
    predictions = Predictions(truth, {"ours": ours, "majority": majority})
    assert predictions.uneven and not Predictions(np.arange(10) % 2, {}).uneven
    plain = compare(predictions, "ours", "majority", balanced=False)
    fair = compare(predictions, "ours", "majority", balanced=True)
    assert plain.value == pytest.approx(-0.08) and fair.value == pytest.approx(0.4)
    verdict = judge(predictions, "ours", ["majority"], labels=300)
    assert verdict.metric == "balanced accuracy" and verdict.outcome == "better"


def test_a_verdict_needs_every_reference_to_be_beaten() -> None:
    draw = np.random.default_rng(0)
    truth = np.arange(800) % 4
    correct = {
        "ours": draw.random(800) < 0.8,
        "raw pixels": draw.random(800) < 0.6,
        "untrained": draw.random(800) < 0.5,
    }
    verdict = judge(Predictions(truth, correct), "ours", ["raw pixels", "untrained"], 3000)
    assert verdict.outcome == "better"
    assert verdict.text.startswith("better than each of its references: by ")
    assert "from 3,000 labels, tested on 800 images" in verdict.text
    assert any("against untrained: +" in line for line in verdict.lines())
    correct["frozen"] = draw.random(800) < 0.8
    verdict = judge(Predictions(truth, correct), "ours", [*correct][1:], 3000)
    assert verdict.outcome == "not better" and "not better than frozen" in verdict.text
    correct["frozen"] = draw.random(800) < 0.95
    verdict = judge(Predictions(truth, correct), "ours", [*correct][1:], 3000)
    assert verdict.outcome == "worse" and verdict.text.startswith("worse than frozen: -")


@pytest.mark.parametrize(
    ("intervals", "why"),
    [
        ({"pixels": (0.05, 0.1)}, ""),
        ({"pixels": (-0.01, 0.07)}, "500 test images are too few to tell +3.0 points from 0; "
         "about 890 would do if the difference stays"),
        ({"pixels": (-0.05, 0.051), "untrained": (0.04, 0.08)},
         "training gained 6.0 points over random weights, but pixels scored as high"),
        ({"pixels": (-0.09, -0.05), "untrained": (0.04, 0.08)},
         "training gained 6.0 points over random weights, but pixels scored higher"),
        ({"pixels": (0.01, 0.09), "untrained network": (-0.04, 0.03)},
         "training has not helped here: random weights scored as high"),
        ({"pixels": (-0.05, 0.03)}, ""),
    ],
)  # fmt: skip
def test_the_reason_is_given_in_numbers(
    intervals: dict[str, tuple[float, float]], why: str
) -> None:
    found = {
        name: difference(low, high, 0.5 if low < 0 < high else 0.001)
        for name, (low, high) in intervals.items()
    }
    verdict = Verdict("", "", "accuracy", "kNN", found, 100, "500 images")
    assert verdict.why == why == verdict.as_dict()["why"]
    assert [line for line in verdict.lines() if "why" in line] == [f"  why: {why}"] * bool(why)


def test_an_interval_below_zero_that_few_groups_made_proves_nothing_either() -> None:
    found = {
        "pixels": Difference(-0.21, -0.36, -0.07, 0.06, 7),
        "untrained": Difference(0.2, 0.1, 0.3, 0.001, 7),
    }
    verdict = Verdict("", "", "accuracy", "kNN", found, 72, "28 images in 7 groups")
    assert verdict.why == "7 groups are too few to tell -21.0 points from 0"


def test_a_test_as_large_as_is_asked_for_would_do() -> None:
    found = Difference(0.03, -0.01, 0.07, 0.2, 500)
    needed = units_needed(found)
    assert needed is not None and 500 * (4 / 3) ** 2 <= needed <= 1.1 * 500 * (4 / 3) ** 2
    assert units_needed(Difference(0.001, -0.03, 0.032, 0.9, 500)) is None  # 480,500


def difference(low: float, high: float, p_value: float) -> Difference:
    return Difference((low + high) / 2, low, high, p_value, 500)


def test_words_and_intervals_agree() -> None:
    """An interval without 0 that is not called better or worse says why it is not."""
    found = {
        "raw pixels": difference(-0.03, -0.001, 0.04),
        "untrained": difference(-0.01, 0.03, 0.5),
    }
    outcome, text = sentence(found, "accuracy", 300, "500 images")
    assert outcome == "not better"
    assert "-1.6 (95 % interval -3.0 to -0.1)" in text
    assert "weak evidence that it is worse (p = 0.04" in text
    assert "or 0.08 corrected for 2 references; the interval is not corrected" in text
    alone = {"raw pixels": difference(-0.03, -0.001, 0.04)}
    assert sentence(alone, "accuracy", 300, "500 images")[0] == "worse"
    unsure = {"raw pixels": difference(-0.03, -0.001, 0.06)}
    outcome, text = sentence(unsure, "accuracy", 300, "500 images")
    assert outcome == "not better" and "p = 0.06" in text and "corrected" not in text
    above = {"raw pixels": difference(0.001, 0.03, 0.06)}
    outcome, text = sentence(above, "accuracy", 300, "500 images")
    assert outcome == "not better" and "weak evidence that it is better" in text
    plain = {"raw pixels": difference(-0.01, 0.03, 0.5)}
    assert "weak" not in sentence(plain, "accuracy", 300, "500 images")[1]


def test_holms_correction_is_that_of_its_paper() -> None:
    found = {
        name: difference(-0.02, -0.001, p)
        for name, p in zip("abc", (0.01, 0.04, 0.03), strict=True)
    }
    outcome, text = sentence(found, "accuracy", 300, "500 images")
    # 3 x 0.01 passes; 2 x 0.03 does not, and nothing after it may.
    assert outcome == "worse" and text.startswith("worse than a: ")
    assert doubt(found, "a") == "" and "0.06 corrected for 3" in doubt(found, "b")
    assert "0.06 corrected for 3" in doubt(found, "c")


def test_one_group_tells_nothing_and_the_verdict_says_what_to_do() -> None:
    correct = {"ours": np.ones(20, bool), "pixels": np.arange(20) % 3 > 0}
    groups = np.zeros(20, np.int64)
    verdict = judge(Predictions(np.arange(20) % 2, correct, groups), "ours", ["pixels"], 80)
    assert "in 1 group" in verdict.tested and "groups" not in verdict.tested
    assert verdict.why.startswith("one test group tells nothing") and "--folds" in verdict.why


def test_few_groups_prove_nothing() -> None:
    """Whatever five patients say, a two-sided test of their signs stays above 1 in 20."""
    groups = np.repeat(np.arange(5), 20)
    correct = {"ours": np.ones(100, bool), "pixels": np.arange(100) % 3 > 0}
    verdict = judge(Predictions(np.arange(100) % 2, correct, groups), "ours", ["pixels"], 80)
    assert verdict.outcome == "not better" and "in 5 groups" in verdict.tested
    assert verdict.why.startswith("5 groups are too few to tell +") and verdict.why in str(
        verdict.lines()
    )


def test_folds_widen_the_interval() -> None:
    """Folds share what they learn from: the variance of five is 1/5 + 1/4 of one's, not 1/5."""
    predictions = drawn(500, 0.8, 0.7, 3)
    folds = np.arange(500) // 100
    plain = compare(predictions, "ours", "pixels", False)
    pooled = Predictions(predictions.truth, predictions.correct, folds=folds)
    wider = compare(pooled, "ours", "pixels", False)
    assert wider.value == plain.value
    assert wider.high - wider.low == pytest.approx(1.5 * (plain.high - plain.low))


def test_over_seeds_is_the_paired_t_interval() -> None:
    found = over_seeds([0.02, 0.03, 0.01, 0.04, 0.025])
    low, high = stats.t.interval(0.95, 4, 0.025, stats.sem([0.02, 0.03, 0.01, 0.04, 0.025]))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.is_better and found.units == 5
    with pytest.raises(UserError, match="at least two seeds"):
        over_seeds([0.1])
