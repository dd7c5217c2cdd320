from pathlib import Path

import pytest
from vissl.config import AttrDict
from vissl.utils import checkpoint, distributed_launcher


def settings(overwrite: bool) -> AttrDict:
    return AttrDict(
        {
            "CHECKPOINT": {
                "OVERWRITE_EXISTING": overwrite,
                "AUTO_RESUME": True,
                "LATEST_CHECKPOINT_RESUME_FILE_NUM": 1,
                "CHECKPOINT_ITER_FREQUENCY": -1,
            }
        }
    )


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    (tmp_path / "model_final_checkpoint_phase1.torch").touch()
    (tmp_path / "checkpoint.torch").symlink_to("model_final_checkpoint_phase1.torch")
    return tmp_path


def test_a_finished_run_that_is_to_be_overwritten_starts_from_the_beginning(
    finished: Path,
) -> None:
    assert checkpoint.get_resume_checkpoint(settings(True), str(finished)) is None


def test_the_other_cases_are_as_before(finished: Path) -> None:
    final = f"{finished}/model_final_checkpoint_phase1.torch"
    assert checkpoint.get_resume_checkpoint(settings(False), str(finished)) == final
    (finished / "model_phase0.torch").touch()
    resumed = checkpoint.get_resume_checkpoint(settings(True), str(finished))
    assert resumed == f"{finished}/model_phase0.torch"


def test_the_launcher_uses_it() -> None:
    assert distributed_launcher.get_resume_checkpoint is checkpoint.get_resume_checkpoint
