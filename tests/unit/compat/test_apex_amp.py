import warnings
from typing import Any

import pytest
import torch
from classy_vision.tasks.classification_task import AmpType
from vissl.config import AttrDict
from vissl.trainer.train_task import SelfSupervisionTask


def task_with(opt_level: str | None) -> Any:
    arguments = {"AMP_ARGS": {"opt_level": opt_level}} if opt_level else {}
    parameters = {"USE_AMP": True, "AMP_TYPE": "apex", **arguments}
    task = SelfSupervisionTask.__new__(SelfSupervisionTask)
    task.config = AttrDict({"MODEL": {"AMP_PARAMS": parameters}, "OPTIMIZER": {"name": "sgd"}})
    task.device = torch.device("cuda")
    task.amp_args = None
    return task


@pytest.mark.parametrize("opt_level", [None, "O1", "O2"])
def test_apex_becomes_torch_amp(opt_level: str | None) -> None:
    task = task_with(opt_level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GradScaler without a GPU
        task.set_amp_args()

    assert task.amp_type is AmpType.PYTORCH
    assert isinstance(task.amp_grad_scaler, torch.amp.GradScaler)
    assert task.config.MODEL.AMP_PARAMS.AMP_TYPE == "apex"


def test_level_o0_is_float32() -> None:
    task = task_with("O0")
    task.set_amp_args()

    assert task.amp_type is None


def test_a_wrong_type_is_still_an_error() -> None:
    task = task_with("O1")
    task.config.MODEL.AMP_PARAMS.AMP_TYPE = "other"
    with pytest.raises(KeyError):
        task.set_amp_args()
