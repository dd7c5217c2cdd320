"""VISSL's task as a run builds it, without the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convit_ssl import adapters
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import make_plan

BuildTask = Callable[..., Any]
BASE = """
data=digits run=cpu trunk=convit_nano data.workers=0 run.threads=1 run.precision=fp32
optim.batch_size=64
"""


@pytest.fixture(scope="session")
def build_task(tmp_path_factory: pytest.TempPathFactory) -> BuildTask:
    """Builds the task of an experiment: model, optimiser, data and loss, ready for its start."""
    adapters.register()
    from vissl.config import AttrDict
    from vissl.trainer.trainer_main import build_task as vissl_build_task
    from vissl.utils.hydra_config import infer_and_assert_hydra_config

    root: Path = tmp_path_factory.mktemp("runs")

    def build(experiment: str, *options: str) -> Any:
        arguments = [f"config={experiment}", *BASE.split(), f"run.root={root}", *options]
        config = AttrDict(make_plan(compose_experiment(arguments)).config)
        infer_and_assert_hydra_config(config)
        task = vissl_build_task(config)
        task.set_checkpoint_path(None)
        task.set_checkpoint_folder(str(root))
        task.set_hooks([])
        task.prepare(pin_memory=False)
        return task

    return build
