"""metrics.jsonl after kills, on full disks, and with bytes that are no text."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from convit_ssl.engines.callbacks.record import Recorder
from convit_ssl.models import create_model
from convit_ssl.runs import RunFolder

LINES = [{"kind": "step", "epoch": 1, "step": step} for step in (10, 20, 30)]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    text = "".join(json.dumps(line) + "\n" for line in LINES)
    # A kill cuts a line; a broken disk leaves anything.
    (RunFolder(tmp_path).metrics).write_bytes(text.encode() + b'\xff\xfe\n{"kind": "step", "epo')
    run = SimpleNamespace(wandb=False, tensorboard=False)
    return Recorder(tmp_path, SimpleNamespace(run=run))


def steps(recorder: Recorder) -> list[int]:
    lines = (RunFolder(recorder.folder).metrics).read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.parametrize(("step", "left"), [(20, [10, 20]), (-1, []), (99, [10, 20, 30])])
def test_lines_beyond_a_step_go(step: int, left: list[int], recorder: Recorder) -> None:
    recorder.drop_after(step)
    recorder.write("step", 1, 40, {"loss": 1.0})
    recorder.close()
    assert steps(recorder) == [*left, 40]


def test_a_full_disk_keeps_them(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    before = (RunFolder(recorder.folder).metrics).read_bytes()
    with monkeypatch.context() as context:
        context.setattr(Path, "write_text", full)
        recorder.drop_after(10)
    assert (RunFolder(recorder.folder).metrics).read_bytes() == before
    recorder.write("step", 1, 40, {"loss": 1.0})
    recorder.close()
    assert list(recorder.folder.iterdir()) == [RunFolder(recorder.folder).metrics]


def test_a_last_checkpoint_may_follow_the_record(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    recorder.write("step", 1, 40, {"loss": 1.0})
    recorder.close()
    assert len(synced) == 1
    recorder.sync()  # of a checkpoint that had to wait for room
    assert len(synced) == 1


def test_intervals_are_no_tables_of_layers(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = {}
    monkeypatch.setattr(
        "convit_ssl.engines.callbacks.record.write_summary",
        lambda writer, tables, step, trunk: written.update(tables),
    )
    recorder.options.run.tensorboard = True
    monkeypatch.setattr(Recorder, "writer", None)
    figures = {"knn": 0.9, "over_pixels_95": [0.1, 0.2], "gates": [[0.5, None]], "widths": []}
    recorder.write_locality(create_model("convit_nano"), figures, 3)
    assert written == {"gates": [[0.5, None]], "widths": []}
