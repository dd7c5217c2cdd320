from typing import Any

import pytest
import torch
from vissl.config import AttrDict
from vissl.trainer.train_task import SelfSupervisionTask


@pytest.mark.parametrize("amp_type", ["apex", "pytorch"])
def test_the_cpu_trains_in_float32(amp_type: str) -> None:
    task: Any = SelfSupervisionTask.__new__(SelfSupervisionTask)
    task.config = AttrDict({"MODEL": {"AMP_PARAMS": {"USE_AMP": True, "AMP_TYPE": amp_type}}})
    task.device = torch.device("cpu")

    task.set_amp_args()

    assert task.amp_type is None
    assert task.amp_args is None
