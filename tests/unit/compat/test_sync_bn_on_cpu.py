from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from vissl.hooks import dino_hooks, swav_momentum_hooks


class Loss(nn.Module):
    checkpoint = None


def make_task() -> Any:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    config = {"MODEL": {"TRUNK": {"VISION_TRANSFORMERS": {}}}, "OPTIMIZER": {}}
    return SimpleNamespace(
        config=config,
        device=torch.device("cpu"),
        use_gpu=False,
        loss=Loss(),
        model=model,
        base_model=model,
    )


@pytest.mark.parametrize(
    ("module", "hook", "encoder"),
    [
        (dino_hooks, "DINOHook", "momentum_teacher"),
        (swav_momentum_hooks, "SwAVMomentumHook", "momentum_encoder"),
    ],
)
def test_batch_norm_stays_batch_norm(
    module: Any, hook: str, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    monkeypatch.setattr(module, "build_model", lambda *_: fresh)
    monkeypatch.setattr(
        module, "init_distributed_data_parallel_model", lambda model: model, raising=False
    )

    hook_class = getattr(module, hook)
    hook_class._build_momentum_network(hook_class.__new__(hook_class), task)

    built = getattr(task.loss, encoder)
    assert type(built[1]) is nn.BatchNorm1d
    torch.testing.assert_close(built[0].weight, task.model[0].weight)
    # and torch's own function is what it was
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm1d(2))
    assert isinstance(converted, nn.SyncBatchNorm)
