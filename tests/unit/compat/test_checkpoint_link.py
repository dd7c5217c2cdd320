import logging
from pathlib import Path

import pytest
from vissl.utils import checkpoint, io


def test_the_writer_of_checkpoints_uses_it() -> None:
    assert checkpoint.create_file_symlink is io.create_file_symlink
    assert io.create_file_symlink.__module__ == "convit_ssl.compat.checkpoint_link"


def test_a_relative_folder_gets_a_link_that_leads_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/one")
    folder.mkdir(parents=True)
    for number in range(2):
        file = folder / f"model_phase{number}.torch"
        file.write_text(str(number))
        io.create_file_symlink(str(file), f"{folder}/checkpoint.torch")

        assert (folder / "checkpoint.torch").read_text() == str(number)
    folder.rename("moved")
    assert Path("moved/checkpoint.torch").read_text() == "1"
    assert sorted(p.name for p in Path("moved").iterdir()) == [
        "checkpoint.torch",
        "model_phase0.torch",
        "model_phase1.torch",
    ]


def test_folders_reached_through_links(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "deep")
    (tmp_path / "a.torch").write_text("a")

    io.create_file_symlink(str(tmp_path / "a.torch"), str(tmp_path / "run" / "checkpoint.torch"))

    assert (tmp_path / "run" / "checkpoint.torch").read_text() == "a"


def test_a_failure_is_logged_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # VISSL's own set-up of logging may have taken the root logger away.
    monkeypatch.setattr(logging, "root", logging.getLogger())

    io.create_file_symlink("a.torch", str(tmp_path / "no_such_folder" / "checkpoint.torch"))

    assert "Could not link" in caplog.text
