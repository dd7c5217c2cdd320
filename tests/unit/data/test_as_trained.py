"""A network's images are read and normalised as its weights record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convit_ssl.analysis.summary import prepared_batch
from convit_ssl.data import as_trained
from convit_ssl.models import create_model

RECORDED = {"mean": [0.5] * 3, "std": [0.25] * 3, "crop_ratio": 1.0, "white_level": 4095}


def network(data: Any) -> Any:
    """An untrained network with a checkpoint's record of its images."""
    model = create_model("convit_nano", num_classes=0).eval()
    model.provenance = {"entry": {"data": data}}
    return model


def test_what_the_weights_record() -> None:
    transform, reading = as_trained(network(RECORDED))
    assert transform.describe()["mean"] == [0.5] * 3
    assert transform.describe()["std"] == [0.25] * 3
    assert transform.describe()["crop_ratio"] == 1.0
    assert reading.white_level == 4095


@pytest.mark.parametrize("data", [None, "digits", {}])
def test_where_nothing_is_recorded(data: Any) -> None:
    transform, reading = as_trained(network(data))
    assert transform.describe()["mean"] == [0.485, 0.456, 0.406]
    assert reading.white_level == 0


def test_a_report_normalises_as_the_weights_say() -> None:
    grey = Image.fromarray(np.full((40, 40, 3), 255, dtype=np.uint8))
    made = prepared_batch(network(RECORDED), [grey])
    assert torch.allclose(made, torch.full_like(made, 2.0))
