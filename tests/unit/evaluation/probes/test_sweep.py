"""Heads one by one, joined steps and blocks of images change neither the choice nor the figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from convit_ssl.evaluation import products
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.probes import logistic
from convit_ssl.evaluation.probes.heads import VERY_MANY_CLASSES, Head, LinearHeads, train_heads
from convit_ssl.evaluation.probes.logistic_many import ManyClasses, pool_for, whitening
from convit_ssl.evaluation.probes.splits import ProbeData, hold_out
from convit_ssl.evaluation.probes.sweep import Training, joined_steps, train_sweep

CLASSES, WIDTH = 210, 12
COLUMNS = {"class_last1": (0, 6), "patch_mean_last1": (6, WIDTH)}


def clusters(images: int, seed: int = 0, spread: float = 1.0) -> FeatureSet:
    centres = np.random.default_rng(99).standard_normal((CLASSES, WIDTH)) * 2
    targets = np.arange(images) % CLASSES
    noise = np.random.default_rng(seed).standard_normal((images, WIDTH))
    features = (centres[targets] + spread * noise).astype(np.float32)
    return FeatureSet(features, targets, columns=COLUMNS)


def training(train: FeatureSet, rows: np.ndarray, steps: int, least: int) -> Training:
    return Training(
        rows, train.targets, CLASSES, iterations=steps, least=least, largest_rate=0.1,
        batch_size=64, momentum=0.9, seed=0,
    )  # fmt: skip


HEADS = [Head(tuple(COLUMNS)[:n], rate) for n in (1, 2) for rate in (0.01, 0.1)]


def test_heads_one_by_one_are_those_of_one_product() -> None:
    train = clusters(840)
    fit, held = hold_out(train.targets, 0.25, 0)
    data = ProbeData(train, tuple(COLUMNS), fit)
    together = LinearHeads(HEADS, dict(data.widths()), CLASSES)
    train_heads(
        together, data, fit, train.targets, iterations=30, batch_size=64, momentum=0.9, seed=0
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # so that heads take turns in two threads
    try:
        found = train_sweep(HEADS, data, training(train, fit, steps=30, least=30))
    finally:
        torch.set_num_threads(before)
    assert [len(places) for places, _ in found.parts] == [1] * 4
    expected = together.logits(data.batch(held))
    for (place,), linear in found.parts:
        one = linear.logits(data.batch(held))[:, 0]
        torch.testing.assert_close(one, expected[:, place], atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(
        found.score(data, held, train.targets),
        together.score(data, held, train.targets),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_joined_steps_lead_to_the_same_accuracy() -> None:
    train = clusters(6300, spread=1.2)
    fit, held = hold_out(train.targets, 0.2, 0)
    data = ProbeData(train, tuple(COLUMNS), fit)
    settings = training(train, fit, steps=800, least=400)
    assert [settings.joined(head) for head in HEADS] == [2, 1, 2, 1]
    scores = [
        train_sweep(HEADS, data, each).score(data, held, train.targets)
        for each in (settings, replace(settings, least=800))
    ]
    (joined, joined_loss), (exact, exact_loss) = scores
    assert joined[[1, 3]].tolist() == exact[[1, 3]].tolist()  # these take every step
    torch.testing.assert_close(joined, exact, atol=0.008, rtol=0)  # 10 of 1,260 images
    torch.testing.assert_close(joined_loss, exact_loss, rtol=0.004, atol=0)
    assert int(joined.argmax()) == int(exact.argmax())


@pytest.mark.parametrize(
    ("rate", "iterations", "least", "expected"),
    [(0.1, 12500, 2000, 1), (0.05, 12500, 2000, 2), (0.02, 12500, 2000, 5), (1e-5, 12500, 2000, 6),
     (0.2, 12500, 2000, 1), (1e-3, 2000, 2000, 1), (1e-3, 100, 2000, 1)],
)  # fmt: skip
def test_how_many_steps_are_joined(rate: float, iterations: int, least: int, expected: int) -> None:
    assert joined_steps(rate, 0.1, iterations, least) == expected


def test_steps_are_joined_for_very_many_classes_and_enough_epochs_alone() -> None:
    train = clusters(420)
    small = Head(("class_last1",), 1e-3)
    settings = training(train, np.arange(420), steps=1000, least=10)
    assert settings.joined(small) == 31  # five epochs of 420 images are 32 steps
    assert replace(settings, num_classes=200).joined(small) == 1
    assert replace(settings, rows=np.arange(42_000)).joined(small) == 1


def test_an_error_in_one_head_ends_the_others() -> None:
    train = clusters(420)
    data = ProbeData(train, tuple(COLUMNS), np.arange(420))
    calls = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        steps = training(train, np.arange(420), steps=10_000, least=10_000)
        with pytest.raises(KeyboardInterrupt):
            train_sweep(HEADS, data, steps, progress)
    finally:
        torch.set_num_threads(before)
    assert len(calls) <= 4


def test_progress_counts_the_steps_of_all_heads() -> None:
    train = clusters(420)
    data = ProbeData(train, tuple(COLUMNS), np.arange(420))
    seen: list[tuple[int, int]] = []
    settings = training(train, np.arange(420), steps=100, least=50)
    train_sweep(HEADS, data, settings, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (300, 300)  # two heads of 100 steps, two of 50
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_loss_and_gradient_in_blocks_are_pytorchs() -> None:
    train = clusters(700)
    rows = np.arange(650)
    data = ProbeData(train, tuple(COLUMNS), rows)
    torch.manual_seed(0)
    parameters = torch.randn(WIDTH + 1, CLASSES, dtype=torch.float64, requires_grad=True)
    features = torch.cat(list(data.batch(rows).values()), dim=1).double()
    logits = features @ parameters[:-1] + parameters[-1]
    expected = F.cross_entropy(logits, torch.from_numpy(train.targets[rows]), reduction="sum")
    expected.backward()
    assert parameters.grad is not None
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with pool_for(data.device) as pool:
            assert (pool is None) == (threads == 1)
            value, gradient = ManyClasses(data, rows, train.targets, pool)(parameters.detach())
        torch.testing.assert_close(value, expected.detach(), rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient, parameters.grad, rtol=0, atol=2e-4)
    torch.set_num_threads(before)


@pytest.mark.parametrize("inverse_penalty", [1e-3, 0.1])
def test_whitened_variables_lead_to_the_same_minimum(
    inverse_penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = clusters(2100, spread=2.0)
    assert isinstance(train.features, np.ndarray)
    train.features[:, 3] += 5 * train.features[:, 2]  # two channels that say much the same
    rows = np.arange(2100)
    data = ProbeData(train, tuple(COLUMNS), rows)
    many = logistic.fit_logistic(
        data, rows, train.targets, CLASSES, inverse_penalty, tolerance=1e-7
    )
    monkeypatch.setattr(logistic, "VERY_MANY_CLASSES", CLASSES)
    plain = logistic.fit_logistic(
        data, rows, train.targets, CLASSES, inverse_penalty, tolerance=1e-8, max_iterations=2000
    )
    torch.testing.assert_close(many.weight, plain.weight, atol=2e-3, rtol=0)
    assert (many.predict(data, rows) == plain.predict(data, rows)).mean() > 0.998


def test_both_libraries_multiply_alike() -> None:
    left, right = torch.randn(210, 17), torch.randn(64, 17)
    torch.testing.assert_close(products.by_onednn(left, right), products.by_blas(left, right))
    assert products.fastest(210, 64, 17) in (products.by_onednn, products.by_blas)
    assert products.fastest(210, 64, 17, "meta") is products.by_blas


def test_onednn_multiplies_without_copies_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_timed", lambda *sizes: products.by_onednn)
    monkeypatch.setattr(products, "multiplies_by_onednn", lambda: False)
    assert products.fastest(210, 64, 17) is products.by_onednn
    monkeypatch.setattr(products, "multiplies_by_onednn", lambda: True)
    assert products.fastest(210, 64, 17) is products.by_blas


def test_whitening_makes_the_curvature_even() -> None:
    train = clusters(420)
    rows = np.arange(420)
    data = ProbeData(train, tuple(COLUMNS), rows, standardise=False)
    root = whitening(data, rows, CLASSES, penalty=1e-3)
    features = torch.from_numpy(train.features).double()
    curvature = features.t() @ features / 420 / CLASSES + 1e-3 * torch.eye(WIDTH)
    made = root[:-1, :-1] @ curvature @ root[:-1, :-1]
    torch.testing.assert_close(made, torch.eye(WIDTH, dtype=torch.float64), atol=1e-5, rtol=0)
    assert CLASSES > VERY_MANY_CLASSES
