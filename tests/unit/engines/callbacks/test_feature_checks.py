"""Looks at the features: what keeps one from ending."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Subset

from convit_ssl.adapters.inputs import SMALLEST_FOR_WORKERS
from convit_ssl.engines.callbacks import feature_checks as watch
from convit_ssl.engines.callbacks import feature_reading as reading
from convit_ssl.engines.callbacks.feature_checks import Watch
from convit_ssl.evaluation import processes

IMAGES = [(torch.full((3, 2, 2), float(i)), 0, i) for i in range(131)]


def looking(side: int) -> Watch:
    options = SimpleNamespace(
        crops=SimpleNamespace(global_size=side),
        derived=SimpleNamespace(processes=1, workers=1, batch_per_process=64),
        run=SimpleNamespace(timeout_minutes=1 / 15),  # of which half: 2 s
    )
    return Watch(options, torch.device("cpu"), contextlib.nullcontext)


def sleep_for_ever(worker: int) -> None:
    time.sleep(1000)


def test_a_worker_that_never_answers_does_not_hold_up_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reading, "shield_worker", sleep_for_ever)
    look = looking(SMALLEST_FOR_WORKERS)
    with caplog.at_level(logging.WARNING):
        features, readable = look.reader.own_features(
            nn.Flatten(), Subset(IMAGES, range(len(IMAGES)))
        )
    assert readable.all()
    assert features[:, 0].tolist() == list(range(len(IMAGES)))
    assert look.reader.workers_hung
    assert "did not answer within 2 s" in caplog.text


def test_a_worker_that_fails_is_an_error() -> None:
    look = looking(SMALLEST_FOR_WORKERS)
    with pytest.raises(IndexError) as raised:
        look.reader.own_features(nn.Flatten(), Subset(IMAGES, [len(IMAGES)]))
    assert not look.reader.workers_hung
    # While the error is still held. A worker left behind would keep the process from ending.
    assert raised.tb and not multiprocessing.active_children()


def folder_of_images(root: Path, bad: int) -> Path:
    """Two classes of 30 images in train and in val, of which some in each are empty files."""
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(30):
                Image.new("RGB", (8, 8), (100 * label + number, 0, 0)).save(place / f"{number}.png")
        for number in range(bad):
            (root / split / "cat" / f"{number}.png").write_bytes(b"")
    return root


def looking_at(root: Path, max_corrupt: float = 0.2) -> Watch:
    options = SimpleNamespace(
        data=SimpleNamespace(name="folder", subset=None, white_level=0, max_corrupt=max_corrupt),
        data_dir=str(root),
        crops=SimpleNamespace(global_size=8),
        derived=SimpleNamespace(processes=1, workers=0, batch_per_process=64, test_model=False),
        optim=SimpleNamespace(epochs=4),
        run=SimpleNamespace(dir=str(root.parent / "run"), timeout_minutes=1),
        watch=SimpleNamespace(every=None, knn_images=None, knn_k=5, best_by="knn"),
    )
    return Watch(options, torch.device("cpu"), contextlib.nullcontext)


def test_a_look_tolerates_as_many_bad_images_as_training(tmp_path: Path) -> None:
    look = looking_at(folder_of_images(tmp_path / "data", bad=5))
    assert look.figures(nn.Flatten())["knn"] == 1.0
    log = (tmp_path / "run" / "unreadable.jsonl").read_text()
    assert len(log.splitlines()) == 10


def test_a_look_that_cannot_read_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    look = looking_at(folder_of_images(tmp_path / "data", bad=5), max_corrupt=0.01)
    trunk = nn.Sequential(nn.Flatten())
    with caplog.at_level(logging.WARNING):
        assert look.figures(trunk) == {}
    assert "skipping this evaluation of the features" in caplog.text
    assert "of 60 images cannot be read" in caplog.text
    assert trunk.training


def test_a_look_at_data_that_are_gone_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    look = looking_at(tmp_path / "nowhere")
    with caplog.at_level(logging.WARNING):
        assert not look.due(1)
        assert look.due(4) and look.figures(nn.Flatten()) == {}
    assert caplog.text.count("nowhere does not exist") == 2


def test_a_defect_of_a_look_shows(tmp_path: Path) -> None:
    look = looking_at(folder_of_images(tmp_path / "data", bad=0))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        look.figures(nn.Sequential(nn.Flatten(), nn.Linear(7, 7)))


def _look_where_one_cannot(root: Path) -> list[dict[str, Any]]:
    look = looking_at(root)
    if processes.rank() == 1:
        look.options.data_dir = f"{root}/nowhere"
    return processes.gather(look.figures(nn.Flatten()))


def test_no_process_waits_for_one_that_cannot_read(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path / "data", bad=0)
    assert processes.run_in_processes(_look_where_one_cannot, 2, root) == [{}, {}]


def resized(images: int, val: int, epochs: int, **watching: int | None) -> Watch:
    """A watch on so many images, which are not opened."""
    options = SimpleNamespace(
        derived=SimpleNamespace(test_model=False),
        optim=SimpleNamespace(epochs=epochs),
        watch=SimpleNamespace(**{"every": None, "knn_images": None, **watching}),
    )
    look = Watch(options, torch.device("cpu"), contextlib.nullcontext)
    look._bank, look._val = range(images), range(val)  # type: ignore[assignment]
    look._choose_rows()
    return look


@pytest.mark.parametrize(
    ("images", "val", "epochs"),
    [(1000, 797, 56), (3920, 980, 77), (60_000, 10_000, 10), (1_281_167, 50_000, 100)],
)
def test_looks_are_few_enough_to_cost_little(images: int, val: int, epochs: int) -> None:
    look = resized(images, val, epochs)
    looks = [epoch for epoch in range(1, epochs + 1) if look.due(epoch)]
    looked_at = len(looks) * (len(look._bank_rows) + len(look._val_rows))
    assert 2 <= len(looks) <= watch.LOOKS
    assert looks[-1] == epochs
    assert looked_at <= images * epochs * watch.LOOKED_AT


def test_a_sample_is_large_enough_to_tell_something_and_the_same_every_time() -> None:
    small = resized(300, 40, 5)
    assert small._bank_rows.tolist() == list(range(300))
    assert small._val_rows.tolist() == list(range(40))
    large = resized(100_000, 50_000, 1)
    assert (len(large._bank_rows), len(large._val_rows)) == (9375, 3125)
    assert large._bank_rows.tolist() == resized(100_000, 50_000, 1)._bank_rows.tolist()
    assert len(set(large._bank_rows.tolist())) == 9375
    assert not len(resized(300, 0, 5)._val_rows)


def test_what_is_given_wins() -> None:
    look = resized(60_000, 10_000, 10, every=3, knn_images=20_000)
    assert [epoch for epoch in range(1, 11) if look.due(epoch)] == [3, 6, 9, 10]
    assert (len(look._bank_rows), len(look._val_rows)) == (20_000, 10_000)
    assert not resized(1000, 0, 4, every=0).due(4)
