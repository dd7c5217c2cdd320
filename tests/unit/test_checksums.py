"""Damage to files is noticed, and nothing that stands beside them hangs the check."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch

from convit_ssl.checksums import check_file, damage, whole_checkpoint
from convit_ssl.engines.checkpoints.files import checkpoint_name, write_checkpoint
from convit_ssl.errors import UserError


def write(folder: Path, step: int) -> Path:
    return write_checkpoint(folder, checkpoint_name(step, step), {"x": torch.full((9,), step)}, 9)


def test_any_changed_byte_that_changes_a_tensor_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    tensor = torch.randn(20)
    torch.save({"a": tensor}, path)
    whole = path.read_bytes()
    noticed = 0
    for place in range(0, len(whole), 5):
        data = bytearray(whole)
        data[place] ^= 4
        path.write_bytes(data)
        os.utime(path, (place, place))
        if damage(path) is not None:
            noticed += 1
            continue
        try:
            found = torch.load(path, weights_only=True)["a"]
        except Exception:
            continue  # what reads it says so
        assert torch.equal(found, tensor)
    assert noticed > 50


def test_two_swapped_checkpoints(tmp_path: Path) -> None:
    first, second, third = (write(tmp_path, step) for step in (1, 2, 3))
    second.rename(tmp_path / "x")
    third.rename(second)
    (tmp_path / "x").rename(third)
    assert whole_checkpoint(tmp_path) == (
        first,
        [
            f"{path.name} is damaged (its content does not match its checksum)"
            for path in (third, second)
        ],
    )
    for name in (second, third):
        name.with_suffix(".sha256").rename(name.with_suffix(".swap"))
    second.with_suffix(".swap").rename(third.with_suffix(".sha256"))
    third.with_suffix(".swap").rename(second.with_suffix(".sha256"))
    assert damage(third) == f"the checksum beside it belongs to {second.name}"


def test_the_checksum_may_be_left_behind(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    path.with_suffix(".sha256").unlink()
    assert damage(path) is None
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((9,), 1).numpy().tobytes()) + 3] ^= 8
    path.write_bytes(data)
    assert "is not as written" in str(damage(path))


def test_an_explicit_damaged_file_names_a_whole_one(tmp_path: Path) -> None:
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    os.truncate(bad, 100)
    with pytest.raises(UserError, match=f"{bad.name} is damaged .*{good.name} is not damaged"):
        check_file(bad)


def test_pipes_and_folders_with_the_names_of_files(tmp_path: Path) -> None:
    good = write(tmp_path, 1)
    os.mkfifo(tmp_path / "checkpoint_e0002_s00000002.torch")
    (tmp_path / "checkpoint_e0003_s00000003.torch").mkdir()
    good.with_suffix(".sha256").unlink()
    os.mkfifo(good.with_suffix(".sha256"))
    found = whole_checkpoint(tmp_path)
    assert found is not None and found[0].resolve() == good


def test_an_archive_that_unpacks_to_much_is_left_to_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "b.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**6))
    assert damage(path) is None
