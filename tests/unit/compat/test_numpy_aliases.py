from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize("name", ["float", "int"])
def test_types(name: str) -> None:
    assert np.zeros(2, dtype=getattr(np, name)).dtype == np.zeros(2, dtype=eval(name)).dtype


def test_numpy_names_that_exist_are_left_alone() -> None:
    assert np.bool is not bool
    assert isinstance(np.array([True])[0], np.bool)


def test_in1d() -> None:
    old: Any = np
    found = old.in1d(np.array([[5, 1], [2, 9]]), [1, 2, 3])
    np.testing.assert_array_equal(found, [False, True, True, False])
    np.testing.assert_array_equal(old.in1d([1, 7], [7], invert=True), [True, False])


def test_vissl_uses_that_need_them() -> None:
    import torch
    from vissl.utils.instance_retrieval_utils.evaluate import compute_map
    from vissl.utils.instance_retrieval_utils.rmac import get_rmac_region_coordinates

    assert get_rmac_region_coordinates(7, 9, 3).dtype == np.int64
    mean, *_ = compute_map(np.arange(10)[:, None], [{"ok": [0, 1], "junk": [3]}], [1, 5])
    assert mean == pytest.approx(1.0)

    from vissl.config import AttrDict
    from vissl.meters.mean_ap_meter import MeanAPMeter

    meter = MeanAPMeter(AttrDict({"num_classes": 2, "max_cpu_capacity": -1}))
    scores = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    meter.update(scores, torch.eye(2, dtype=torch.int8))
    meter.sync_state()
    assert meter.value["mAP"] == pytest.approx(1.0)
