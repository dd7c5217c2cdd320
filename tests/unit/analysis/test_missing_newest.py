"""A report says that the newest checkpoint is gone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from convit_ssl.analysis.summary import RunSummary, _load_newest


def test_a_missing_newest_checkpoint_is_said(tmp_path: Path) -> None:
    older = SimpleNamespace(path=tmp_path / "checkpoint_e0001_s00000005.torch")
    summary: Any = object.__new__(RunSummary)
    summary.run, summary.problems = SimpleNamespace(checkpoints=[older]), []
    (tmp_path / "last.torch").symlink_to("checkpoint_e0002_s00000010.torch")
    _load_newest(summary, lambda path: "model")  # type: ignore[arg-type,return-value]
    assert summary.model == "model" and summary.checkpoint is older
    (said,) = summary.problems
    assert "checkpoint_e0002_s00000010.torch, is missing; an older one is shown" in said
    (tmp_path / "last.torch").unlink()
    (tmp_path / "last.torch").symlink_to(older.path.name)
    older.path.touch()
    summary.problems.clear()
    _load_newest(summary, lambda path: "model")  # type: ignore[arg-type,return-value]
    assert summary.problems == []
