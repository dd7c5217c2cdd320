"""A run folder that goes away is noticed and not made again; stops claim what is on the disk."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from convit_ssl.engines.checkpoints import saving
from convit_ssl.engines.checkpoints.files import checkpoint_name, write_checkpoint
from convit_ssl.engines.checkpoints.lock import lock_run
from convit_ssl.engines.checkpoints.run_folder import FolderGuard, newest_on_disk, resume_words
from convit_ssl.engines.checkpoints.saving import CheckpointHook
from convit_ssl.engines.launch.signals import FOLDER_GONE, Stopped
from convit_ssl.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "run"
    place.mkdir()
    return place


def make_hook(folder: Path, guard: FolderGuard | None = None) -> CheckpointHook:
    run = SimpleNamespace(checkpoint_minutes=10, keep_checkpoints=2)
    options = SimpleNamespace(run=run)
    training, place = SimpleNamespace(recorder=None), folder / "checkpoints"
    return CheckpointHook(options, place, {}, training, None, None, guard=guard)  # type: ignore[arg-type]


def write(folder: Path, step: int) -> Path:
    return write_checkpoint(folder / "checkpoints", checkpoint_name(step, step), {"x": 1}, 3)


def leave(hook: CheckpointHook, step: int) -> Stopped:
    """Stop after a step whose checkpoint is to be written."""
    hook._name = checkpoint_name(step, step)
    hook._write(hook._name, {"x": torch.ones(3)}, False)
    with pytest.raises(Stopped) as caught:
        hook._leave(signal.SIGTERM, step)
    return caught.value


def test_a_stop_names_the_checkpoint_that_it_wrote(folder: Path) -> None:
    write(folder, 1)
    stop = leave(make_hook(folder), 2)
    assert stop.exit_code == 128 + signal.SIGTERM
    assert str(stop) == (
        "stopped by SIGTERM after step 2; the same command resumes from "
        "checkpoint_e0002_s00000002.torch"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EPERM, errno.EDQUOT])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_stop_claims_no_checkpoint_that_is_not_there(
    number: int, earlier: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:
        write(folder, 1)

    def full(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(saving, "write_checkpoint", full)
    stop = leave(make_hook(folder), 2)
    assert stop.exit_code == 74
    assert f"could not be written ({os.strerror(number)})" in str(stop)
    expected = "resumes from checkpoint_e0001" if earlier else "starts from the beginning"
    assert expected in str(stop) and "e0002" not in str(stop)


def test_a_checkpoint_that_was_deleted_meanwhile(folder: Path) -> None:
    hook = make_hook(folder)
    hook._name = checkpoint_name(1, 1)
    with pytest.raises(Stopped, match=r"is not in .* any more.*starts from the beginning"):
        hook._leave(signal.SIGTERM, 1)


def test_a_moved_folder_is_noticed_and_not_made_again(folder: Path) -> None:
    write(folder, 1)
    with lock_run(folder):
        guard = FolderGuard(folder)
        assert not guard.gone(0.0)
        moved = folder.rename(folder.with_name("elsewhere"))
        assert not guard.gone(10.0)  # a network file system may be away for a moment
        assert guard.gone(13.0) and guard.gone_now()
        words = guard.describe()
        assert f"was moved to {moved}" in words and f"run.dir={moved}" in words
        assert "checkpoint_e0001_s00000001.torch" in words
        hook = make_hook(folder, guard)
        assert hook._asked() == FOLDER_GONE
        with pytest.raises(UserError, match="was moved to"):
            hook._check_folder(FOLDER_GONE)
        hook._write(checkpoint_name(2, 2), {"x": 1}, False)
        assert not folder.exists()
        guard.close()


def test_a_deleted_folder_and_another_in_its_place(folder: Path) -> None:
    with lock_run(folder):
        guard = FolderGuard(folder)
        shutil.rmtree(folder)
        assert guard.gone_now() and "was deleted" in guard.describe()
        folder.mkdir()
        assert guard.gone_now()
        guard.close()


def test_a_file_system_that_numbers_its_folders_anew(folder: Path) -> None:
    with lock_run(folder):
        guard = FolderGuard(folder)
        guard._identity = (1, 2)
        assert not guard.gone_now()
        guard.close()


def test_the_guard_leaves_the_lock_to_the_run(folder: Path) -> None:
    """Record locks go when any descriptor of the file is closed."""
    code = (
        "import sys; from pathlib import Path\n"
        "from convit_ssl.engines.checkpoints.lock import lock_run\n"
        "with lock_run(Path(sys.argv[1]), 0.0): print('taken')"
    )
    with lock_run(folder):
        guard = FolderGuard(folder)
        guard._identity = (1, 2)
        assert not guard.gone_now()
        other = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True
        )
        guard.close()
    assert "another process is training in" in other.stderr
    assert other.stdout == ""


def test_what_the_same_command_does_next(folder: Path) -> None:
    assert "starts from the beginning" in resume_words(folder / "checkpoints")
    first, second = write(folder, 1), write(folder, 2)
    assert second.name in resume_words(folder / "checkpoints")
    second.with_suffix(".sha256").unlink()
    assert newest_on_disk(folder / "checkpoints") == first


@pytest.mark.parametrize("moved", [True, False])
def test_a_system_that_does_not_tell_where_it_went(
    folder: Path, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is claimed then: what was moved is not lost."""

    def unknown(path: str) -> str:
        raise FileNotFoundError(path)

    with lock_run(folder):
        guard = FolderGuard(folder)
        if moved:
            folder.rename(folder.with_name("elsewhere"))
        else:
            shutil.rmtree(folder)
        monkeypatch.setattr("os.readlink", unknown)
        assert "was moved or deleted" in guard.describe()
        guard.close()
