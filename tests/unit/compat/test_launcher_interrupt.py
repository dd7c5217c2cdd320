import io
import logging
from typing import Any

import pytest
from vissl.config import AttrDict
from vissl.utils import distributed_launcher


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """The launcher with everything but its handling of failures taken out."""
    config = {
        "DISTRIBUTED": {"NUM_NODES": 1, "NUM_PROC_PER_NODE": 1},
        "MACHINE": {"DEVICE": "cpu"},
        "CHECKPOINT": {"USE_SYMLINK_CHECKPOINT_FOR_RESUME": False},
        "MODEL": {"WEIGHTS_INIT": {"PARAMS_FILE": ""}},
    }
    for name in ("setup_logging", "shutdown_logging", "set_env_vars", "get_node_id"):
        monkeypatch.setattr(distributed_launcher, name, lambda *_, **__: None)
    for name in ("is_training_finished", "get_resume_checkpoint", "get_dist_run_id"):
        monkeypatch.setattr(distributed_launcher, name, lambda *_, **__: None)
    for name in ("_copy_to_local", "_cleanup_local_dir"):
        monkeypatch.setattr(distributed_launcher, name, lambda cfg: None)
    monkeypatch.setattr(distributed_launcher, "get_checkpoint_folder", lambda cfg: str(tmp_path))

    def run(error: BaseException) -> None:
        def worker(**_: Any) -> None:
            raise error

        monkeypatch.setattr(distributed_launcher, "_distributed_worker", worker)
        distributed_launcher.launch_distributed(AttrDict(config), 0, "train", lambda cfg: [])

    return run


def test_an_interrupt_is_no_success(launch: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        launch(KeyboardInterrupt())
    assert stopped.value.code == 130


def test_a_failure_is_logged_and_raised(launch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.Logger("launcher")
    logger.addHandler(logging.StreamHandler(stream := io.StringIO()))
    monkeypatch.setattr(logging, "root", logger)

    with pytest.raises(RuntimeError, match="out of luck"):
        launch(RuntimeError("out of luck"))

    assert stream.getvalue() == "Wrapping up, caught exception: RuntimeError('out of luck')\n"
