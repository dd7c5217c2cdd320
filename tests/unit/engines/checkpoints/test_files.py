"""Checkpoints are whole or absent, the last good one is found, and the folder does not grow."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from convit_ssl.checksums import stated_damage as damage
from convit_ssl.engines.checkpoints.files import (
    BEST,
    LAST,
    checkpoint_name,
    epochs_done,
    find_checkpoint,
    point_to,
    read_state,
    remove_leftovers,
    sorted_checkpoints,
    write_checkpoint,
)
from convit_ssl.errors import UserError


def write(folder: Path, step: int, keep: int = 3, size: int = 1000) -> Path:
    state = {"x": torch.full((size,), float(step))}
    return write_checkpoint(folder, checkpoint_name(step // 10, step), state, keep)


def test_the_newest_whole_one_is_found(tmp_path: Path) -> None:
    write(tmp_path, 10)
    newest = write(tmp_path, 20)
    found = find_checkpoint(tmp_path)
    assert found is not None and found.path == newest and found.skipped == []
    assert epochs_done(tmp_path) == 2


@pytest.mark.parametrize("kept", [0, 1, 100, 2000])
def test_a_truncated_newest_gives_way_to_the_one_before(tmp_path: Path, kept: int) -> None:
    good = write(tmp_path, 10)
    bad = write(tmp_path, 20)
    os.truncate(bad, kept)
    found = find_checkpoint(tmp_path)
    assert found is not None and found.path == good
    assert found.skipped == [f"{bad.name}: its content does not match its checksum"]


def test_a_flipped_bit_and_a_lost_checksum_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, 10)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert damage(path) == "its content does not match its checksum"
    path.with_suffix(".sha256").unlink()
    assert damage(path) == "its checksum checkpoint_e0001_s00000010.sha256 is missing or empty"


def test_damaged_checkpoints_alone_are_no_reason_to_begin_again_silently(tmp_path: Path) -> None:
    os.truncate(write(tmp_path, 10), 5)
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged .*run\.overwrite=true"):
        find_checkpoint(tmp_path)
    assert find_checkpoint(tmp_path / "absent") is None


def test_a_folder_with_the_name_of_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 10)
    (tmp_path / checkpoint_name(2, 20)).mkdir()
    with pytest.raises(UserError, match=r"s00000020\.torch is a folder.*move it away"):
        find_checkpoint(tmp_path)


def test_the_last_few_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        write(tmp_path, step, keep=2)
        if step == 10:
            point_to(tmp_path / BEST, checkpoint_name(1, 10))
    steps = [path.name[-14:-6] for path in sorted_checkpoints(tmp_path)]
    assert steps == ["00000010", "00000040", "00000050"]
    assert len(list(tmp_path.iterdir())) == 3 * 2 + 2


def test_the_folder_can_be_moved(tmp_path: Path) -> None:
    write(tmp_path / "a", 10)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert os.readlink(tmp_path / "b" / LAST) == checkpoint_name(1, 10)
    loaded = torch.load(tmp_path / "b" / LAST, weights_only=True)
    assert loaded["x"][0] == 10


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    good = write(tmp_path, 10)
    (tmp_path / ".checkpoint_e0002_s00000020.torch.partial-7").write_bytes(b"half")
    (tmp_path / "checkpoint_e0002_s00000020.sha256").write_text("0  x\n")
    (tmp_path / "mine.txt").write_text("stays")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        good.name,
        good.with_suffix(".sha256").name,
        LAST,
        "mine.txt",
    }


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    good = write(tmp_path, 10)
    before = sorted(path.name for path in tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises((OSError, RuntimeError)):
            write(tmp_path, 20, size=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert damage(good) is None
    write(tmp_path, 20, size=100_000)
    assert os.readlink(tmp_path / LAST) == checkpoint_name(2, 20)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_users_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = write(tmp_path / "run", 10)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_pickle_in_place_of_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    from convit_ssl.engines.checkpoints.resume import check_same_run

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / checkpoint_name(1, 10)
    torch.save({"convit_ssl": Trap()}, path)
    with pytest.raises(UserError, match="not a checkpoint of a run"):
        check_same_run(path, None)  # type: ignore[arg-type]
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", {"a": 1}, [1], {"convit_ssl": {}}])
@pytest.mark.parametrize("mmap", [False, True])
def test_something_else_with_a_right_checksum(content: object, mmap: bool, tmp_path: Path) -> None:
    path = tmp_path / checkpoint_name(1, 10)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match="Delete it to resume from the previous one"):
        read_state(path, mmap)
