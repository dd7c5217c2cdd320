"""kNN against the formula written out, whatever the chunks, ties and missing labels."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.probes.knn import evaluate_knn, knn_name, vote_weights, weighted_vote
from convit_ssl.evaluation.probes.neighbours import (
    best_keys,
    decode_keys,
    nearest_neighbours,
    rank_keys,
)
from convit_ssl.evaluation.processes import run_in_processes


def naive(
    train: np.ndarray, targets: np.ndarray, query: np.ndarray, k: int, temperature: float
) -> int:
    """DINO's vote for one query, from the formula."""
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    similarity = unit @ (query / np.linalg.norm(query))
    votes: dict[int, float] = {}
    for i in np.argsort(-similarity, kind="stable")[:k]:
        weight = np.exp(similarity[i] / temperature)
        votes[targets[i]] = votes.get(targets[i], 0.0) + weight
    return max(votes, key=lambda label: votes[label])


def sets(seed: int, train: int = 41, val: int = 13, classes: int = 3) -> tuple[FeatureSet, ...]:
    generator = np.random.default_rng(seed)
    return tuple(
        FeatureSet(
            generator.standard_normal((n, 5)).astype(np.float32),
            generator.integers(0, classes, n),
            classes=[f"c{i}" for i in range(classes)],
        )
        for n in (train, val)
    )


@given(seed=st.integers(0, 1000), k=st.integers(1, 41))
@settings(max_examples=30, deadline=None)
def test_vote_is_the_formula(seed: int, k: int) -> None:
    train, val = sets(seed)
    found = evaluate_knn(train, val, ks=[k], device="cpu")
    expected = [naive(train.features, train.targets, q, k, 0.07) for q in val.features]
    assert found.accuracy[k].correct == int((np.array(expected) == val.targets).sum())


@given(train_chunk=st.integers(1, 50), query_chunk=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_chunks_do_not_matter(train_chunk: int, query_chunk: int) -> None:
    # Small integers, so that similarities tie exactly and the order of equals is at stake.
    generator = np.random.default_rng(3)
    train = np.sign(generator.standard_normal((37, 4))).astype(np.float32)
    queries = np.sign(generator.standard_normal((11, 4))).astype(np.float32)
    rows, similarity = nearest_neighbours(
        train, queries, 9, device="cpu", train_chunk=train_chunk, query_chunk=query_chunk
    )
    exact = (queries @ train.T) / 4
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(rows.numpy(), expected)
    np.testing.assert_allclose(similarity.numpy(), np.take_along_axis(exact, expected, 1))


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=30))
def test_keys_sort_as_the_similarities_and_then_by_row(values: list[float]) -> None:
    similarity = torch.tensor([values])
    rows = torch.arange(len(values))
    ranked = rank_keys(similarity, rows).topk(len(values)).values
    found, decoded = decode_keys(ranked)
    order = sorted(range(len(values)), key=lambda i: (-values[i], np.signbit(values[i]), i))
    assert found[0].tolist() == order
    assert decoded[0].tolist() == [values[i] for i in order]


@given(seed=st.integers(0, 50), k=st.integers(1, 12), levels=st.sampled_from([2, 5, 10**6]))
@settings(max_examples=40, deadline=None)
def test_the_best_of_a_chunk_are_among_those_kept(seed: int, k: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(-levels, levels, (5, 11), generator=generator) / levels
    rows = torch.arange(100, 111)
    every = rank_keys(similarity, rows).sort(dim=1, descending=True).values
    kept = best_keys(similarity, rows, k).sort(dim=1, descending=True).values
    assert torch.equal(kept[:, :k], every[:, :k])


def test_rows_without_labels_take_no_part() -> None:
    train, val = sets(5)
    train.targets[::3] = -1
    val.targets[1] = -1
    kept, asked = train.targets >= 0, val.targets >= 0
    found = evaluate_knn(train, val, ks=[7], device="cpu")
    alone = evaluate_knn(
        FeatureSet(train.features[kept], train.targets[kept], classes=train.classes),
        FeatureSet(val.features[asked], val.targets[asked], classes=val.classes),
        ks=[7],
        device="cpu",
    )
    assert found.as_dict() == alone.as_dict()
    assert found.accuracy[7].total == 12


def test_more_neighbours_than_images_are_cut_with_a_note() -> None:
    train, val = sets(0, train=12)
    found = evaluate_knn(train, val, device="cpu")
    assert list(found.accuracy) == [10, 12]
    assert found.headline == 12
    assert found.notes == ["train has 12 labelled images: k = 20, 100, 200 became 12"]
    with pytest.raises(UserError, match="1 or more"):
        evaluate_knn(train, val, ks=[0])


def test_the_quoted_k_is_fixed_beforehand() -> None:
    train, val = sets(0, train=300)
    assert evaluate_knn(train, val, device="cpu").headline == 20


def test_confusion_and_classes() -> None:
    train, val = sets(2)
    found = evaluate_knn(train, val, ks=[5], device="cpu")
    assert found.figures.confusion.sum() == 13
    assert (
        found.figures.confusion.sum(axis=1).tolist()
        == np.bincount(val.targets, minlength=3).tolist()
    )
    assert found.accuracy[5].correct == found.figures.confusion.trace()
    row = found.figures.confusion[1]
    assert found.figures.recall[1] == row[1] / row.sum()


def test_val_is_read_by_the_names_of_its_classes() -> None:
    train, val = sets(4)
    part = FeatureSet(val.features, np.where(val.targets == 2, 0, -1), classes=["c2"])
    found = evaluate_knn(train, part, ks=[5], device="cpu")
    whole = evaluate_knn(train, val, ks=[5], device="cpu")
    assert found.figures.recall[2] == whole.figures.recall[2]
    assert found.figures.recall[:2] == [None, None]
    other = FeatureSet(val.features, val.targets, classes=["c0", "x", "y"])
    with pytest.raises(UserError, match="2 classes that train does not have: 'x', 'y'"):
        evaluate_knn(train, other)


def test_first_class_wins_a_tie() -> None:
    labels = torch.tensor([[2, 1, 1, 2]])
    assert weighted_vote(labels, torch.ones(1, 4), 3).tolist() == [1]


def test_two_processes_give_the_same_answer() -> None:
    generator = np.random.default_rng(0)
    train = generator.standard_normal((300, 6)).astype(np.float32)
    queries = generator.standard_normal((53, 6)).astype(np.float32)
    search = partial(nearest_neighbours, k=20, device="cpu", query_chunk=8, train_chunk=64)
    one = search(train, queries)
    two = run_in_processes(search, 2, train, queries)
    assert two is not None
    assert torch.equal(one[0], two[0])
    # The last bit of a similarity depends on how many threads a matrix product has.
    torch.testing.assert_close(one[1], two[1], rtol=0, atol=1e-6)


def test_small_temperatures_come_to_the_nearest_neighbour() -> None:
    """exp(similarity / 0.001) is more than float64 holds; only ratios count."""
    train, val = sets(7, train=200, val=60)
    nearest = evaluate_knn(train, val, ks=[1], device="cpu").predictions
    for temperature in (1e-3, 1e-5, 1e-9):
        found = evaluate_knn(train, val, ks=[20], temperature=temperature, device="cpu")
        assert (found.predictions == nearest).mean() > 0.95, temperature
    weights = vote_weights(torch.tensor([[0.9, 0.8, -0.5]]), 1e-4)
    assert weights.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_euclidean_neighbours_are_scikit_learns(weights: str) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    train, val = sets(3, train=90, val=50)
    probe = KNeighborsClassifier(5, weights=weights).fit(train.features, train.targets)
    found = evaluate_knn(train, val, ks=[5], metric="euclidean", device="cpu")
    right = found.majority if weights == "uniform" else found.accuracy[5]
    assert right.correct == int((probe.predict(val.features) == val.targets).sum())
    assert found.name() == "weighted 5-NN (Euclidean, all images)"


def test_an_image_that_is_in_train_decides_by_euclidean_distance() -> None:
    train, _ = sets(3, train=90)
    found = evaluate_knn(train, train, ks=[20], metric="euclidean", device="cpu")
    assert found.accuracy[20].value == 1.0


def test_two_classes_have_a_roc_curve() -> None:
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score
    from sklearn.neighbors import KNeighborsClassifier

    train, val = sets(11, train=80, val=70, classes=2)
    found = evaluate_knn(train, val, ks=[7], metric="euclidean", device="cpu")
    probe = KNeighborsClassifier(7, weights="distance").fit(train.features, train.targets)
    expected = roc_auc_score(val.targets, probe.predict_proba(val.features)[:, 1])
    assert found.figures.auc == pytest.approx(expected, abs=1e-9)
    balanced = balanced_accuracy_score(val.targets, found.predictions)
    assert found.figures.balanced_accuracy == pytest.approx(balanced)
    assert evaluate_knn(*sets(11), ks=[7], device="cpu").figures.auc is None


def test_a_class_without_images_in_val_is_named_and_left_out_of_the_mean() -> None:
    train, val = sets(2, val=40)
    val.targets[val.targets == 1] = -1
    found = evaluate_knn(train, val, ks=[5], device="cpu")
    recall = found.figures.recall
    assert recall[1] is None
    assert found.figures.balanced_accuracy == pytest.approx((recall[0] + recall[2]) / 2)
    assert found.notes == [
        "val has no images of 1 of 3 classes (c1): accuracy and balanced accuracy are over the "
        "other 2"
    ]


def test_one_name_for_each_figure() -> None:
    assert knn_name(20) == "weighted 20-NN (cosine, all images)"
    assert knn_name(5, weighted=False) == "plain 5-NN (cosine, all images)"
    assert knn_name(20, extent="sample") == "weighted 20-NN (cosine, sample)"
