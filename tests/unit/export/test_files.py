"""Hostile and broken files: one message, nothing run, nothing written."""

from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convit_ssl.errors import UserError
from convit_ssl.export import files, load_trunk
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT, create_model
from convit_ssl.models.fingerprint import weights_fingerprint


class Malicious:
    """Pickles to a call that makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_malicious_pickle_is_refused_before_it_runs(form: str, tmp_path: Path) -> None:
    target = tmp_path / "was_here"
    path = tmp_path / "weights.pth"
    content = {"model": {"patch_embed.proj.weight": torch.ones(1)}, "extra": Malicious(target)}
    if form == "bare":
        path.write_bytes(pickle.dumps(content["extra"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    refused = r"would call (posix|nt|os)\.system.*Nothing was run"
    with pytest.raises(UserError, match="not a readable checkpoint" if form == "bare" else refused):
        load_trunk(path)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".pth", ".torch", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_files(suffix: str, kept: float, tmp_path: Path, teacher: ConViT) -> None:
    path = tmp_path / f"trunk{suffix}"
    save_trunk(teacher, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UserError, match=r"not a readable checkpoint: it is cut short"):
        load_trunk(path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300), suffix=st.sampled_from([".pth", ".safetensors", ".torch"]))
def test_garbage_gives_one_message(data: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"garbage{suffix}"
    path.write_bytes(data)
    with pytest.raises(UserError):
        load_trunk(path)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_flipped_byte_never_crashes(data: st.DataObject, tmp_path: Path, teacher: ConViT) -> None:
    path = tmp_path / "trunk.safetensors"
    save_trunk(teacher, path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, 4000))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    with contextlib.suppress(UserError):
        load_trunk(path)


def test_programs_and_graphs_are_no_weights(tmp_path: Path) -> None:
    script = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(script, tmp_path / "script.pt")
    with pytest.raises(UserError, match="TorchScript program, not weights"):
        load_trunk(tmp_path / "script.pt")
    (tmp_path / "graph.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="ONNX graph"):
        load_trunk(tmp_path / "graph.onnx")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_trunk(tmp_path / "other.pth")


def test_a_dictionary_that_holds_itself(tmp_path: Path, teacher: ConViT) -> None:
    content: dict[str, Any] = {"model": teacher.state_dict()}
    content.update({f"again{i}": content for i in range(9)})
    torch.save(content, tmp_path / "loop.pth")
    assert load_trunk(tmp_path / "loop.pth").provenance["weights"] == "model"


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, teacher: ConViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trunk.torch"
    path.write_bytes(b"before")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_trunk(teacher, path)
    assert path.read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["trunk.torch"]


def test_files_are_readable_by_others(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        files.write_text(tmp_path / "card.md", "text")
    finally:
        os.umask(previous)
    assert (tmp_path / "card.md").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_written(tmp_path: Path, teacher: ConViT) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in"):
        save_trunk(teacher, tmp_path / "file" / "trunk.torch")
    with pytest.raises(UserError, match="must end in"):
        save_trunk(teacher, tmp_path / "trunk.bin")


def test_what_a_killed_export_left_is_deleted(tmp_path: Path) -> None:
    left = tmp_path / ".unfinished-x"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    (left / ".alive").write_text("1")
    files.write_text(tmp_path / "a.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]


@pytest.mark.parametrize("ending", [".safetensors", ".torch", ".pth"])
def test_a_folder_whose_name_is_not_utf8(ending: str, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"latin\xe9")
    folder.mkdir()
    model = create_model("convit_nano", num_classes=0)
    save_trunk(model, folder / f"t{ending}")
    assert weights_fingerprint(load_trunk(folder / f"t{ending}")) == weights_fingerprint(model)
