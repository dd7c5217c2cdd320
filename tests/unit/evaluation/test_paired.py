"""Quantiles and p-values of paired differences, against scipy.stats."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from convit_ssl.evaluation import paired


@pytest.mark.parametrize("positive", range(10))
def test_equal_sizes_are_counted_as_scipy_counts_them(positive: int) -> None:
    moved = np.array([1.0] * positive + [-1.0] * (9 - positive))
    expected = stats.binomtest(positive, 9).pvalue
    assert paired.sign_flip_p(moved) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_seeds_have_scipys_interval_and_p_value(count: int) -> None:
    values = np.random.default_rng(count).normal(0.3, 1.0, count)
    found = paired.over_seeds(list(values))
    test = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(paired.LEVEL)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9)
    tail = stats.norm.cdf(
        np.sqrt(count / (count - 1)) * stats.t.ppf((1 - paired.LEVEL) / 2, count - 1)
    )
    assert paired._widened_tail(count) == pytest.approx(tail, rel=1e-9)
