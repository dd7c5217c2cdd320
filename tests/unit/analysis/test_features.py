"""Feature panels against scikit-learn on the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import NearestNeighbors

from convit_ssl.analysis.features import describe_features, nearest_neighbours
from convit_ssl.analysis.images import sprite_sheet


def clustered(images=60, classes=3, dim=8):
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(images) % classes
    centres = torch.randn(classes, dim, generator=generator)
    return centres[targets] + 0.6 * torch.randn(images, dim, generator=generator), targets


def describe(features, targets, **options):
    thumbnails = np.zeros((len(features), 4, 4, 3), np.uint8)
    names = [f"{i}.png" for i in range(len(features))]
    return describe_features(
        features, targets.tolist(), ["a", "b", "c"], thumbnails, names, layout="pca", **options
    )


def test_map_and_neighbours_equal_scikit_learn():
    features, targets = clustered()
    found = describe(features, targets)
    pca = PCA(2).fit(features.numpy())
    expected = pca.transform(features.numpy())
    np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-4)
    np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_, rtol=1e-4)
    unit = torch.nn.functional.normalize(features, dim=1).numpy()
    order = NearestNeighbors(n_neighbors=11, metric="cosine").fit(unit).kneighbors(unit)[1]
    np.testing.assert_array_equal(found.neighbours, order[:, 1:])


def test_confusion_equals_scikit_learn():
    features, targets = clustered()
    found = describe(features, targets).classified
    expected = confusion_matrix(targets.numpy(), found.predictions)
    np.testing.assert_array_equal(found.confusion, expected)
    np.testing.assert_allclose(found.per_class, expected.diagonal() / expected.sum(1))
    assert found.accuracy == pytest.approx((found.predictions == targets.numpy()).mean())
    assert found.accuracy > 0.8


def test_a_classifier_speaks_for_itself():
    features, targets = clustered()
    logits = torch.nn.functional.one_hot((targets + 1) % 3, 3).float()
    found = describe(features, targets, logits=logits).classified
    assert found.accuracy == 0
    assert "classifier" in found.method


def test_images_without_labels_are_shown_and_not_judged():
    features, targets = clustered()
    assert describe(features, torch.full_like(targets, -1)).classified is None
    targets[::2] = -1
    found = describe(features, targets).classified
    assert (found.predictions[::2] == -1).all()
    assert found.confusion.sum() == 30


def test_fewer_images_than_neighbours():
    values, indices = nearest_neighbours(torch.randn(4, 3), 10)
    assert values.shape == indices.shape == (4, 3)


def test_sprite_sheet_holds_every_thumbnail_in_its_place():
    thumbnails = np.arange(19, dtype=np.uint8)[:, None, None, None] * np.ones(
        (19, 4, 4, 3), np.uint8
    )
    sheet = sprite_sheet(thumbnails, columns=16)
    assert sheet.shape == (8, 64, 3)
    assert (sheet[4:8, 8:12] == 18).all()
