from pathlib import Path
from typing import Any

import pytest
import torch
from classy_vision.generic import util
from vissl.config import AttrDict
from vissl.utils import checkpoint


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "model_phase0.torch"
    util.save_checkpoint(str(tmp_path), {"step": 1}, name)

    def save(state: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="no space"):
        util.save_checkpoint(str(tmp_path), {"step": 2}, name)

    assert torch.load(tmp_path / name) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_kill_leaves_is_never_resumed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    save = torch.save

    def look(state: Any, file: Any) -> None:
        seen.extend(path.name for path in tmp_path.iterdir())
        save(state, file)

    monkeypatch.setattr(torch, "save", look)
    name = "model_final_checkpoint_phase0.torch"
    assert util.save_checkpoint(str(tmp_path), {}, name) == f"{tmp_path}/{name}"

    (tmp_path / name).rename(tmp_path / seen[0])
    settings = AttrDict({"CHECKPOINT": {"CHECKPOINT_ITER_FREQUENCY": -1}})
    assert not checkpoint.has_checkpoint(str(tmp_path))
    assert checkpoint.get_checkpoint_resume_files(str(tmp_path), settings) is None


def test_the_folder_is_made(tmp_path: Path) -> None:
    path = util.save_checkpoint(str(tmp_path / "new" / "run"), {"step": 1})

    assert torch.load(path) == {"step": 1}
    assert checkpoint.save_checkpoint is util.save_checkpoint
