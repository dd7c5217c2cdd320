"""Stopped within an epoch, resumed by other processes and with another batch."""

from __future__ import annotations

import json
import signal
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from convit_ssl.data import open_dataset
from convit_ssl.data.loading.samplers import WINDOW
from tests import quick_run
from tests.quick_run import Run

RECORDING = Path(__file__).with_name("recording_run.py")
IMAGES = 1000


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "shards"])
def test_each_image_once_per_epoch_whoever_goes_on(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_run, "TOOL", RECORDING)
    run = Run(tmp_path, "optim.epochs=4", "run.checkpoint_minutes=60")
    if data == "shards":
        run.arguments.remove("data=digits")
        run.arguments += ["data=shards", f"data_dir={write_shards(tmp_path / 'shards')}"]
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()

    run.start("run.processes=2", RECORD=str(places[0]), PACE="0.2")
    run.until(run.reached(12))
    run.signal(signal.SIGUSR1)
    assert run.wait() == 128 + signal.SIGUSR1, run.text()
    stopped = max(run.saved())

    changed = ("run.processes=1", "optim.batch_size=70")
    assert run.complete(*changed, RECORD=str(places[1])) == 2
    assert "optim.batch_size: 100 then, 70 now" in run.text()
    accept = "run.accept_changes=[optim]"
    assert run.complete(*changed, accept, RECORD=str(places[1])) == 0, run.text()

    first, second = (records(place) for place in places)
    assert len({line["step"] for line in first}) == stopped
    seen: dict[int, Counter[int]] = {}
    for line in [*first, *second]:
        seen.setdefault(line["epoch"], Counter()).update(line["images"])
    assert sorted(seen) == [0, 1, 2, 3]
    for epoch, images in seen.items():
        assert max(images.values()) == 1, f"epoch {epoch}"
        assert IMAGES - len(images) < 100  # the last ones fill no batch
    # The schedule ends with the run, on a whole step of the new batch.
    assert max(line["step"] for line in second) == 4 * (IMAGES // 70)


@pytest.mark.slow
def test_stopped_at_the_last_step_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the epoch is left then, which must not look like an empty data set."""
    monkeypatch.setattr(quick_run, "TOOL", RECORDING)
    options = "optim.epochs=3", "run.checkpoint_minutes=60"
    undisturbed = Run(tmp_path / "undisturbed", *options)
    assert undisturbed.complete() == 0, undisturbed.text()

    run = Run(tmp_path / "stopped", *options)
    assert run.complete(STOP_AT="10") == 128 + signal.SIGUSR1, run.text()
    assert max(run.saved()) == 10
    assert run.complete() == 0, run.text()
    assert run.losses() == undisturbed.losses()


@pytest.mark.slow
def test_less_is_left_of_the_epoch_than_the_new_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_run, "TOOL", RECORDING)
    run = Run(tmp_path, "optim.epochs=3", "run.checkpoint_minutes=60")
    assert run.complete(STOP_AT="9") == 128 + signal.SIGUSR1, run.text()
    assert max(run.saved()) == 9

    changed = "optim.batch_size=250", "run.accept_changes=[optim]"
    assert run.complete(*changed) == 0, run.text()
    assert [line["epoch"] for line in run.epochs()] == [1, 2, 3]


@pytest.mark.slow
def test_what_was_done_with_a_larger_batch_counts_as_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A larger batch numbers the steps of an epoch lower; the newest checkpoint is still newest."""
    monkeypatch.setattr(quick_run, "TOOL", RECORDING)
    run = Run(tmp_path, "optim.epochs=3", "run.checkpoint_minutes=60")
    assert run.complete(STOP_AT="14") == 128 + signal.SIGUSR1, run.text()
    changed = "optim.batch_size=250", "run.accept_changes=[optim]"
    assert run.complete(*changed, STOP_AT="7") == 128 + signal.SIGUSR1, run.text()
    assert run.saved()[-1] == 15
    assert run.complete(*changed) == 0, run.text()
    assert "from checkpoint_e0001_s00000015.torch" in run.text()
    assert [line["epoch"] for line in run.epochs()] == [1, 2, 3]
    steps = [line["step"] for line in run.epochs()]
    assert steps == [10, 16, 20]
    assert run.complete(*changed) == 0
    assert "is finished" in run.text()


def write_shards(folder: Path) -> Path:
    """The digits in more shards than a process reads from at a time."""
    images = open_dataset("digits").paths
    (folder / "train").mkdir(parents=True)
    for number in range(WINDOW + 4):
        with tarfile.open(folder / "train" / f"{number:04d}.tar", "w") as archive:
            for position, path in list(enumerate(images))[number :: WINDOW + 4]:
                archive.add(path, f"{position:05d}.png")
    return folder


def records(place: Path) -> list[dict[str, object]]:
    lines = [line for path in place.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]
