"""The sweep trains as torch's SGD does, head by head, and never looks at val to choose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.probes.heads import Head, LinearHeads, train_heads
from convit_ssl.evaluation.probes.linear import (
    LinearConfig,
    LinearResult,
    evaluate_linear,
    feature_choices,
)
from convit_ssl.evaluation.probes.logistic import _entropy
from convit_ssl.evaluation.probes.splits import ProbeData, Standardiser, hold_out

COLUMNS = {"class_last1": (0, 5), "class_last2": (5, 10), "patch_mean_last1": (10, 15)}
QUICK = LinearConfig(min_iterations=60, epochs=1, learning_rates=(1e-3, 0.1))


def clusters(images: int, seed: int, classes: int = 3, spread: float = 1.0) -> FeatureSet:
    centres = np.random.default_rng(99).standard_normal((classes, 15)) * 2
    generator = np.random.default_rng(seed)
    targets = np.arange(images) % classes
    features = centres[targets] + spread * generator.standard_normal((images, 15))
    return FeatureSet(
        features.astype(np.float32), targets, columns=COLUMNS,
        classes=[f"c{i}" for i in range(classes)],
    )  # fmt: skip


def test_each_head_trains_as_alone_in_torch() -> None:
    train = clusters(48, seed=0)
    rows = np.arange(48)
    data = ProbeData(train, tuple(COLUMNS), rows, standardise=False)
    choices = feature_choices(tuple(COLUMNS))
    heads = [Head(choice, rate) for choice in choices for rate in (0.01, 0.1)]
    linear = LinearHeads(heads, dict(data.widths()), 3)
    train_heads(
        linear, data, rows, train.targets, iterations=7, batch_size=16, momentum=0.9, seed=3
    )
    logits = linear.logits(data.batch(rows))
    for i, head in enumerate(heads):
        x = torch.from_numpy(np.concatenate([train.column(c) for c in head.columns], axis=1))
        layer = torch.nn.Linear(x.shape[1], 3)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimiser = torch.optim.SGD(layer.parameters(), lr=1.0, momentum=0.9)
        generator = np.random.default_rng(3)
        order = [b for _ in range(3) for b in np.split(generator.permutation(rows), 3)]
        for step in range(7):
            cosine = 0.5 * (1 + np.cos(np.pi * step / 7))
            optimiser.param_groups[0]["lr"] = head.learning_rate * 16 / 256 * cosine
            optimiser.zero_grad()
            batch = order[step]
            F.cross_entropy(layer(x[batch]), torch.from_numpy(train.targets[batch])).backward()
            optimiser.step()
        torch.testing.assert_close(logits[:, i], layer(x).detach(), atol=1e-5, rtol=1e-4)


def test_scores_are_those_of_the_predictions() -> None:
    train = clusters(60, seed=0, spread=4)
    rows = np.arange(60)
    data = ProbeData(train, tuple(COLUMNS), rows)
    heads = [Head(("class_last1",), 0.1), Head(tuple(COLUMNS), 0.1)]
    linear = LinearHeads(heads, dict(data.widths()), 3)
    train_heads(
        linear, data, rows, train.targets, iterations=20, batch_size=30, momentum=0.9, seed=0
    )
    accuracy, loss = linear.score(data, rows[10:], train.targets)
    for i in range(2):
        predicted = linear.predict(data, rows[10:], head=i)
        assert accuracy[i] == pytest.approx((predicted == train.targets[10:]).mean())
    logits = linear.logits(data.batch(rows[10:]))[:, 1]
    expected = F.cross_entropy(logits, torch.from_numpy(train.targets[10:]))
    assert loss[1] == pytest.approx(float(expected), rel=1e-5)


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    share=st.floats(0.01, 0.9),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_held_out_part(counts: list[int], share: float, seed: int) -> None:
    targets = np.concatenate([[-1, -1], *(np.full(n, c) for c, n in enumerate(counts))])
    if max(counts) < 2:
        with pytest.raises(UserError, match="no class has two labelled images"):
            hold_out(targets, share, seed)
        return
    fit, held = hold_out(targets, share, seed)
    assert sorted([*fit, *held]) == np.flatnonzero(targets >= 0).tolist()
    for label, count in enumerate(counts):
        in_fit, in_held = (targets[fit] == label).sum(), (targets[held] == label).sum()
        assert in_fit >= (count > 0)
        assert in_held >= (count > 1)
        assert abs(in_held - share * count) <= 1


def test_held_out_part_follows_the_seed() -> None:
    targets = np.arange(60) % 3
    assert hold_out(targets, 0.2, 0)[1].tolist() == hold_out(targets, 0.2, 0)[1].tolist()
    assert hold_out(targets, 0.2, 0)[1].tolist() != hold_out(targets, 0.2, 1)[1].tolist()


def test_standardisation_is_measured_on_train_alone() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(5, 3, (200, 4)).astype(np.float32)
    features[:, 2] = 7.0
    rows = np.arange(150)
    features[150:] += 1000
    found = Standardiser.measure(features, rows)
    np.testing.assert_allclose(found.mean, features[:150].mean(axis=0), rtol=1e-5)
    expected = features[:150].std(axis=0)
    expected[2] = 1.0
    np.testing.assert_allclose(found.scale, expected, rtol=1e-5)


def test_files_and_memory_give_the_same_batches(tmp_path: Path) -> None:
    train = clusters(20, seed=0)
    np.save(tmp_path / "f.npy", train.features)
    mapped = replace(train, features=np.load(tmp_path / "f.npy", mmap_mode="r"))
    rows = np.array([3, 1, 17])
    for limit in (0, 1 << 20):
        for source in (train, mapped, replace(train, features=torch.from_numpy(train.features))):
            data = ProbeData(source, ["class_last2"], np.arange(20), memory_limit=limit)
            raw = train.features[:, 5:10]
            expected = (raw - raw.mean(axis=0)) / raw.std(axis=0)
            got = data.batch(rows)["class_last2"].numpy()
            np.testing.assert_allclose(got, expected[rows], atol=1e-5)


def test_val_does_not_choose() -> None:
    train, val = clusters(90, seed=0, spread=4), clusters(60, seed=1, spread=4)
    shuffled = replace(val, targets=np.roll(val.targets, 1))
    honest, other = (evaluate_linear(train, v, QUICK, device="cpu") for v in (val, shuffled))
    assert honest.head == other.head
    assert honest.sweep == other.sweep
    assert honest.inverse_penalty == other.inverse_penalty
    assert honest.accuracy.value > other.accuracy.value


def test_the_best_head_of_the_held_out_part_is_taken() -> None:
    found = evaluate_linear(clusters(90, 0, spread=4), clusters(60, 1), QUICK, device="cpu")
    assert found.held_out == max(found.sweep.values()) == found.sweep[found.head]
    assert len(found.sweep) == 4 * 2
    assert found.images == {"train": 90, "held_out": 18, "val": 60}


def test_refit_reads_the_held_out_part_too() -> None:
    train, val = clusters(90, seed=0, spread=4), clusters(300, seed=1, spread=4)
    one_head = replace(QUICK, learning_rates=(0.1,), inverse_penalties=(0.1,))

    def measured(refit: bool) -> LinearResult:
        config = replace(one_head, refit=refit)
        return evaluate_linear(train, val, config, [("class_last1",)], device="cpu")

    kept, again = measured(refit=False), measured(refit=True)
    _, held = hold_out(train.targets, 0.2, 0)
    train.features[held] = train.features[held][::-1].copy()
    assert measured(refit=False).accuracy == kept.accuracy
    assert measured(refit=False).logistic == kept.logistic
    assert measured(refit=True).accuracy != again.accuracy


def test_feature_choices() -> None:
    assert feature_choices(tuple(COLUMNS)) == (
        ("class_last1",),
        ("class_last1", "patch_mean_last1"),
        ("class_last1", "class_last2"),
        ("class_last1", "class_last2", "patch_mean_last1"),
    )
    assert feature_choices(("pixels",)) == (("pixels",),)
    assert feature_choices(("class_last1",)) == (("class_last1",),)


def test_default_sweep_is_the_published_one() -> None:
    rates = LinearConfig().learning_rates
    assert len(rates) == 13
    assert (min(rates), max(rates)) == (1e-5, 0.1)
    assert LinearConfig().iterations(50) == 2000
    assert LinearConfig().iterations(51200) == 12500
    assert LinearConfig().iterations(10240) == 4000


def test_impossible_probes_say_so() -> None:
    train, val = clusters(30, seed=0), clusters(30, seed=1)
    with pytest.raises(UserError, match="none of the 30 images has a label"):
        evaluate_linear(replace(train, targets=np.full(30, -1)), val, QUICK)
    with pytest.raises(UserError, match="only one class"):
        evaluate_linear(replace(train, targets=np.zeros(30)), val, QUICK)
    with pytest.raises(UserError, match="classes that train does not have: 'c2'"):
        evaluate_linear(replace(train, targets=train.targets % 2, classes=["c0", "c1"]), val, QUICK)


def test_cross_entropy_and_its_gradient_are_pytorchs() -> None:
    torch.manual_seed(0)
    logits = (30 * torch.randn(50, 7, dtype=torch.float64)).requires_grad_()
    truth = torch.randint(0, 7, (50,))
    expected = F.cross_entropy(logits, truth, reduction="sum")
    expected.backward()
    found, gradient = _entropy(logits.detach().clone(), truth)
    assert torch.allclose(found, expected.detach(), rtol=1e-12)
    assert logits.grad is not None
    assert torch.allclose(gradient, logits.grad, atol=1e-12)
