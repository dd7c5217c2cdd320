"""kNN, logistic regression and the linear sweep against scikit-learn on the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.features.tokens import TokenFeatures
from convit_ssl.evaluation.probes.knn import evaluate_knn, nearest_neighbours
from convit_ssl.evaluation.probes.linear import LinearConfig, evaluate_linear
from convit_ssl.evaluation.probes.logistic import fit_logistic
from convit_ssl.evaluation.probes.splits import ProbeData
from convit_ssl.models import convit_nano

TRAIN = 1200


@pytest.fixture(scope="module")
def sets() -> tuple[FeatureSet, FeatureSet]:
    """Features of a fixed, untrained convit_nano on scikit-learn's digits."""
    torch.manual_seed(0)
    model = convit_nano(img_size=16, num_classes=0).eval()
    images, targets = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 8 - 1
    pixels = torch.nn.functional.interpolate(pixels, size=16).expand(-1, 3, -1, -1)
    extractor = TokenFeatures(model)
    with torch.inference_mode():
        features = torch.cat([extractor(batch) for batch in pixels.split(256)]).numpy()
    order = np.random.default_rng(0).permutation(len(features))
    train, val = order[:TRAIN], order[TRAIN:]
    names = [str(i) for i in range(10)]
    made = [FeatureSet(features[r], targets[r], (), extractor.layout, names) for r in (train, val)]
    return made[0], made[1]


def test_neighbours_and_plain_vote(sets: tuple[FeatureSet, FeatureSet]) -> None:
    train, val = sets
    x, queries = np.ascontiguousarray(train.column()), np.ascontiguousarray(val.column())
    theirs = KNeighborsClassifier(5, metric="cosine").fit(x, train.targets)
    _, similarity = nearest_neighbours(x, queries, 5, device="cpu")
    distance, _ = theirs.kneighbors(queries)
    np.testing.assert_allclose(1 - similarity.numpy(), distance, atol=2e-6)
    found = evaluate_knn(train, val, ks=[5], device="cpu")
    assert found.majority.value == pytest.approx(theirs.score(queries, val.targets), abs=2 / 597)


@pytest.mark.parametrize("k", [10, 20])
def test_weighted_vote(sets: tuple[FeatureSet, FeatureSet], k: int) -> None:
    train, val = sets
    theirs = KNeighborsClassifier(
        k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(train.column(), train.targets)
    found = evaluate_knn(train, val, ks=[k], device="cpu")
    expected = theirs.score(val.column(), val.targets)
    assert found.accuracy[k].value == pytest.approx(expected, abs=1 / 597)


@pytest.mark.parametrize("inverse_penalty", [0.001, 0.03])
def test_logistic_regression(sets: tuple[FeatureSet, FeatureSet], inverse_penalty: float) -> None:
    train, val = sets
    rows = np.arange(TRAIN)
    data = ProbeData(train, ["class_last1"], rows)
    ours = fit_logistic(
        data, rows, train.targets, 10, inverse_penalty, max_iterations=2000, tolerance=1e-7
    )
    scaler = StandardScaler().fit(train.column())
    theirs = LogisticRegression(C=inverse_penalty, max_iter=5000, tol=1e-7)
    theirs.fit(scaler.transform(train.column()), train.targets)
    np.testing.assert_allclose(ours.weight.T, theirs.coef_, atol=2e-3)
    every = np.arange(len(val))
    predicted = ours.predict(data.of(val), every)
    expected = theirs.predict(scaler.transform(val.column()))
    assert (predicted == expected).mean() > 0.995


def test_the_start_does_not_matter(sets: tuple[FeatureSet, FeatureSet]) -> None:
    train, _ = sets
    rows = np.arange(TRAIN)
    data = ProbeData(train, ["class_last1"], rows)
    far = fit_logistic(data, rows, train.targets, 10, 1e-4)
    cold, warm = (
        fit_logistic(data, rows, train.targets, 10, 1e-3, start=s, tolerance=1e-8)
        for s in (None, far)
    )
    torch.testing.assert_close(cold.weight, warm.weight, atol=1e-4, rtol=0)


def test_linear_probe_is_as_good_as_scikit_learns(
    sets: tuple[FeatureSet, FeatureSet],
) -> None:
    """One in the other's 95 % interval: two ways to fit the same kind of classifier."""
    train, val = sets
    config = LinearConfig(learning_rates=(0.05, 0.1), inverse_penalties=(0.1, 1.0))
    found = evaluate_linear(train, val, config, [tuple(train.columns)], device="cpu")
    assert found.logistic is not None
    scaler = StandardScaler().fit(train.features)
    theirs = LogisticRegression(C=found.inverse_penalty, max_iter=2000)
    theirs.fit(scaler.transform(train.features), train.targets)
    expected = theirs.score(scaler.transform(val.features), val.targets)
    assert found.logistic.value == pytest.approx(expected, abs=0.005)
    low, high = found.accuracy.interval
    assert low <= expected <= high
