from pathlib import Path
from typing import Any

import numpy as np
import pytest

LOW_SHOT = {"dataset_name": "voc", "k_values": [2], "sample_inds": [1]}
CONFIG: dict[str, Any] = {
    "normalize": True,
    "loss": "squared_hinge",
    "penalty": "l2",
    "dual": True,
    "max_iter": 200,
    "cls_list": [],
    "force_retrain": False,
    "cross_val_folds": 2,
    "costs": {"costs_list": [0.5], "base": -1.0, "power_range": [4, 20]},
    "low_shot": LOW_SHOT,
}


@pytest.fixture
def separable() -> tuple[np.ndarray, np.ndarray]:
    """Features (40, 8) in which each of the three classes shows as one large component."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 3))
    features = rng.normal(0, 0.1, (40, 8))
    features[:, :3] += 4 * labels - 2
    return features, labels


def test_training_and_evaluation(tmp_path: Path, separable: Any) -> None:
    from vissl.utils.svm_utils.svm_trainer import SVMTrainer

    trainer = SVMTrainer(CONFIG, layer="res5", output_dir=str(tmp_path))
    trainer.train(*separable)
    trainer.test(*separable)

    average_precision = np.load(tmp_path / "res5" / "test_ap.npy")
    assert average_precision.shape == (3, 1)
    assert average_precision.min() > 0.95


def test_low_shot_evaluation(tmp_path: Path, separable: Any) -> None:
    from vissl.utils.svm_utils.svm_low_shot_trainer import SVMLowShotTrainer

    trainer = SVMLowShotTrainer(CONFIG, layer="res5", output_dir=str(tmp_path))
    trainer.train(*separable, sample_num=1, low_shot_kvalue=2)
    trainer.test(*separable, sample_num=1, low_shot_kvalue=2)

    files = list((tmp_path / "res5").glob("*ap*.npy"))
    assert files and np.load(files[0]).min() > 0.9


def test_the_table_is_numpy_in_every_other_way() -> None:
    from convit_ssl.compat.svm_average_precision import NumpyWithTables

    names = NumpyWithTables()
    table = names.zeros((2, 2))
    table[0] = np.array([1.0, 2.0])
    table[1][1] = np.array([5.0])
    np.testing.assert_array_equal(table, [[1, 2], [0, 5]])
    with pytest.raises(ValueError, match="sequence"):
        table[0][0] = np.array([1.0, 2.0])
    assert names.mean is np.mean
