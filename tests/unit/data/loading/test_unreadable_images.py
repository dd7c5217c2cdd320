"""Damaged, empty, vanished and slow files: reported once, replaced, counted, and no more."""

from __future__ import annotations

import errno
import io
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from convit_ssl.data import FaultLog, ImageFiles, images, open_dataset
from convit_ssl.data.checks import survey
from convit_ssl.data.loading import retries, samples
from convit_ssl.data.loading.samples import (
    DataGoneError,
    SampleReader,
    TooManyUnreadableError,
    UnreadableImageError,
)
from convit_ssl.data.reading.pixels import image_header
from convit_ssl.errors import UserError


def write_folder(folder: Path, per_class: int = 50) -> Path:
    for label, name in enumerate(("cat", "dog")):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.full((8, 8, 3), 100 * label + number, np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{number:03d}.png")
    return folder


def level(sample: tuple[Image.Image, int, int]) -> int:
    return int(np.asarray(sample[0])[0, 0, 0])


def as_array(image: Image.Image) -> np.ndarray:
    return np.array(image)


def png(size: int = 64) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()


DAMAGED = {
    "zero bytes": b"",
    "text": b"this is not an image at all",
    "truncated png": png()[:2000],
    "truncated jpeg": jpeg()[:700],
    "png header only": png()[:33],
    "jpeg header only": jpeg()[:20],
    "bad checksum": png()[:60] + b"\0\0\0\0" + png()[64:],
    "html of a failed download": b"<!DOCTYPE html><html><body>404</body></html>",
    "gif header only": b"GIF89a\x08\x00\x08\x00",
    "tiff header only": b"II*\x00\x08\x00\x00\x00",
    "webp header only": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    "bmp header only": b"BM\x36\x00\x00\x00",
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("method", ["image", "array"])
def test_damaged_files_are_named_with_a_reason(tmp_path: Path, kind: str, method: str) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(DAMAGED[kind])
    reader = SampleReader([""] * 100, fault_log=FaultLog(tmp_path / "log"))
    with pytest.raises(UnreadableImageError) as caught:
        getattr(reader, method)(str(path))
    assert str(caught.value)
    assert reader.fault_log.read() == {str(path): str(caught.value)}


def test_a_replacement_has_the_same_class_and_does_not_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path)
    bad = tmp_path / "train" / "dog" / "007.png"
    bad.write_bytes(b"")
    dataset = open_dataset("folder", tmp_path, seed=3)
    index = dataset.files.index("dog/007.png")
    with caplog.at_level(logging.WARNING, "convit_ssl.data"):
        first, again = dataset[index], dataset[index]
    assert level(first) == level(again)
    assert level(first) >= 100
    # The number is that of the image that is shown: methods that learn numbers learn the right one.
    assert first[1] == 1 and first[2] == again[2] != index
    assert level(first) == level(dataset[first[2]])
    dataset.set_epoch(1)
    others = {level(dataset[index])}
    for epoch in range(2, 8):
        dataset.set_epoch(epoch)
        others.add(level(dataset[index]))
    assert len(others) > 3
    assert caplog.text.count(str(bad)) == 1


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_workers_count_together_and_the_message_survives_them(tmp_path: Path, method: str) -> None:
    write_folder(tmp_path)
    for number in range(2):
        (tmp_path / "train" / "cat" / f"{number:03d}.png").write_bytes(b"broken")
    dataset = open_dataset("folder", tmp_path, transform=as_array, max_corrupt=0.02)
    context = multiprocessing.get_context(method)
    loader = DataLoader(dataset, batch_size=10, num_workers=2, multiprocessing_context=context)
    assert sum(len(targets) for _, targets, _ in loader) == 100
    assert len(dataset.reader.fault_log.read()) == 2
    (tmp_path / "train" / "dog" / "001.png").write_bytes(b"broken")
    batches = iter(loader)
    with pytest.raises(TooManyUnreadableError) as caught:
        list(batches)
    for worker in batches._workers:  # type: ignore[attr-defined]
        worker.terminate()  # torch waits five seconds for each after an error
    message = str(caught.value)
    assert message.startswith("3 of 100 images cannot be read, more than max_corrupt=0.02")
    assert "Traceback" not in message
    for name in ("cat/000.png", "cat/001.png", "dog/001.png"):
        assert name in message


def test_one_bad_image_of_a_few_is_tolerated_unless_none_may_be(tmp_path: Path) -> None:
    write_folder(tmp_path, per_class=5)
    (tmp_path / "train" / "cat" / "000.png").write_bytes(b"broken")
    assert len(list(open_dataset("folder", tmp_path))) == 10
    with pytest.raises(UserError, match="max_corrupt=0 allows"):
        list(open_dataset("folder", tmp_path, max_corrupt=0.0))
    with pytest.raises(UserError, match="fraction from 0 to 1"):
        open_dataset("folder", tmp_path, max_corrupt=5)


def test_a_vanished_file_and_a_dangling_link(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train" / "cat" / "link.png").symlink_to(tmp_path / "nowhere.png")
    dataset = open_dataset("folder", tmp_path, max_corrupt=0.05)
    (tmp_path / "train" / "cat" / "010.png").unlink()
    assert len(list(dataset)) == 101
    assert set(dataset.reader.fault_log.read().values()) == {"No such file or directory"}


def test_nothing_readable_ends_in_one_message(tmp_path: Path) -> None:
    write_folder(tmp_path, per_class=3)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"broken")
    dataset = open_dataset("folder", tmp_path, max_corrupt=1.0)
    with pytest.raises(UserError, match=r"cannot be read .* tried instead"):
        dataset[0]
    with pytest.raises(UserError, match="can be read"):
        dataset.native_size()


class Flaky:
    """A file system that fails ``times`` times before it answers."""

    def __init__(self, times: int, number: int) -> None:
        self.times = times
        self.number = number
        self.calls = 0

    def __call__(self, _path: str) -> bytes:
        self.calls += 1
        if self.calls <= self.times:
            raise OSError(self.number, "Input/output error")
        return png(8)


def test_a_failing_file_system_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", waited.append)
    flaky = Flaky(3, errno.EIO)
    monkeypatch.setattr(samples, "read_bytes", flaky)
    assert SampleReader([""] * 10).image("x.png").size == (8, 8)
    assert waited == list(retries.RETRY_DELAYS[:3])
    assert flaky.calls == 4


@pytest.mark.parametrize(
    ("number", "calls"), [(errno.EIO, 6), (errno.ENOENT, 1), (errno.EACCES, 1)]
)
def test_errors_that_stay_are_given_up(
    monkeypatch: pytest.MonkeyPatch, number: int, calls: int
) -> None:
    monkeypatch.setattr(retries.time, "sleep", lambda _seconds: None)
    flaky = Flaky(100, number)
    monkeypatch.setattr(samples, "read_bytes", flaky)
    reader = SampleReader([""] * 10)
    with pytest.raises(UnreadableImageError):
        reader.image("x.png")
    with pytest.raises(UnreadableImageError):
        reader.image("x.png")
    assert flaky.calls == calls  # known files are not read again


def test_the_log_leaves_no_file_behind(tmp_path: Path) -> None:
    log = FaultLog()
    assert log.read() == {}
    assert not log.path.exists()
    log.add("a.png", "broken")
    path = log.path
    assert path.exists()
    del log
    assert not path.exists()
    kept = FaultLog(tmp_path / "unreadable.jsonl")
    kept.add("a\nb.png", "broken\ttoo")
    kept.path.write_text(kept.path.read_text() + "half a li")
    assert FaultLog(kept.path).read() == {"a\nb.png": "broken\ttoo"}


def test_a_bomb_counts_as_unreadable(tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(png(64))
    reader = SampleReader([""] * 10, max_pixels=1000)
    with pytest.raises(UnreadableImageError, match="64 x 64 pixels is over the limit"):
        reader.array(str(tmp_path / "big.png"))


def test_image_files_refuses_an_empty_listing(tmp_path: Path) -> None:
    dataset = open_dataset("folder", write_folder(tmp_path))
    from convit_ssl.data.images import take
    from convit_ssl.data.listing.folders import find_images

    with pytest.raises(UserError, match="no images are left"):
        ImageFiles(take(find_images(tmp_path), []))
    with pytest.raises(IndexError):
        dataset[100]


def test_what_was_mended_since_does_not_stop_the_next_run(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    cats = tmp_path / "data" / "train" / "cat"
    log = tmp_path / "run" / "unreadable.jsonl"
    for number in range(3):
        (cats / f"{number:03d}.png").write_bytes(b"broken")
    with pytest.raises(TooManyUnreadableError):
        list(open_dataset("folder", tmp_path / "data", max_corrupt=0.02, fault_log=FaultLog(log)))
    (cats / "000.png").unlink()
    (cats / "001.png").write_bytes(png(8))
    (cats / "020.png").write_bytes(b"broken")
    again = open_dataset("folder", tmp_path / "data", max_corrupt=0.021, fault_log=FaultLog(log))
    assert len(list(again)) == 99
    assert set(again.reader.fault_log.read()) == {str(cats / "002.png"), str(cats / "020.png")}


def test_train_and_val_share_a_log_but_not_an_allowance(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    (tmp_path / "data" / "val").mkdir()
    for split in ("train", "val"):
        if split == "val":
            for name in ("cat", "dog"):
                folder = tmp_path / "data" / "train" / name
                (tmp_path / "data" / "val" / name).mkdir()
                for path in folder.iterdir():
                    (tmp_path / "data" / "val" / name / path.name).write_bytes(png(8))
        (tmp_path / "data" / split / "dog" / "003.png").write_bytes(b"broken")
    log = FaultLog(tmp_path / "unreadable.jsonl")
    for split in ("train", "val"):
        dataset = open_dataset("folder", tmp_path / "data", split, fault_log=log)
        assert len(list(dataset)) == 100
    assert len(log.read()) == 2


def no_file(place: Path, kind: str) -> str:
    """Something that has an image's name and is none; gives its path."""
    path = place / "x.png"
    if kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.truncate(40 * 2**30)
    elif kind == "folder":
        path.mkdir()
    return f"{place}/a\0b.png" if kind == "nul" else str(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("endless", "a pipe or a device"),
        ("pipe", "a pipe or a device"),
        ("sparse", r"42,949,672,960 bytes are more than the limit of 1 GiB"),
        ("nul", "a NUL byte"),
        ("folder", "Is a directory"),
    ],
)
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str, words: str) -> None:
    path = no_file(tmp_path, kind)
    reader = SampleReader([""] * 100, fault_log=FaultLog(tmp_path / "log"))
    with pytest.raises(UnreadableImageError, match=words):
        reader.image(path)
    with pytest.raises(OSError, match=words):
        image_header(path)
    assert not [name for name in os.listdir("/proc/self/fd") if _points_to(name, path)]


def _points_to(descriptor: str, path: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == path
    except OSError:
        return False


def full(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_that_cannot_be_written_is_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path)
    for number in range(2):
        (tmp_path / "train" / "cat" / f"{number:03d}.png").write_bytes(b"broken")
    log = FaultLog(tmp_path / "log")
    monkeypatch.setattr(samples, "_locked", full)
    dataset = open_dataset("folder", tmp_path, max_corrupt=0.02, fault_log=log)
    with caplog.at_level(logging.WARNING, "convit_ssl.data"):
        assert len(list(dataset)) == 100
    assert caplog.text.count("cannot be written (No space left on device)") == 1
    assert len(log.read()) == 2
    (tmp_path / "train" / "dog" / "000.png").write_bytes(b"broken")
    with pytest.raises(TooManyUnreadableError, match="3 of 100 images"):
        list(dataset)
    monkeypatch.undo()  # there is room again
    log.path.write_text("half a li")
    log.add("a.png", "broken")
    assert len(FaultLog(log.path).read()) == 4


@pytest.mark.parametrize("how", ["renamed", "emptied"])
def test_a_folder_that_goes_away_is_no_damaged_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(retries.time, "sleep", lambda _seconds: None)
    dataset = open_dataset("folder", write_folder(tmp_path), max_corrupt=0.5)
    if how == "renamed":
        (tmp_path / "train").rename(tmp_path / "elsewhere")
    else:  # as a mount point is when nothing is mounted
        for name in ("cat", "dog"):
            shutil.rmtree(tmp_path / "train" / name)
    with pytest.raises(
        DataGoneError, match=r"train became unavailable .* resumes from the last"
    ) as caught:
        dataset[0]
    assert caught.value.exit_code == 75
    assert not dataset.reader.fault_log.read()


def test_a_folder_that_comes_back_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset("folder", write_folder(tmp_path))
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    back = (tmp_path / "elsewhere").rename
    monkeypatch.setattr(retries.time, "sleep", lambda _seconds: back(tmp_path / "train"))
    assert level(dataset[3]) == 3
    assert not dataset.reader.fault_log.read()


def test_many_errors_in_a_row_are_an_outage_and_a_worker_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(samples, "read_bytes", Flaky(1000, errno.ESTALE))
    dataset = open_dataset("folder", write_folder(tmp_path), transform=as_array, max_corrupt=0.5)
    loader = DataLoader(dataset, batch_size=10, num_workers=1, multiprocessing_context="fork")
    batches = iter(loader)
    with pytest.raises(DataGoneError) as caught:
        list(batches)
    for worker in batches._workers:  # type: ignore[attr-defined]
        worker.terminate()
    assert str(caught.value).startswith(f"{tmp_path / 'train'} became unavailable")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("stays", [False, True])
def test_a_hiccup_of_the_file_system_changes_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    """Sizes that follow from the images stay what they were, or the run could not be resumed."""
    Image.fromarray(np.full((9, 40), 3000, np.uint16)).save(tmp_path / "a.tiff")
    Image.fromarray(np.full((5, 5), 40_000, np.uint16)).save(tmp_path / "b.tiff")
    monkeypatch.setattr(retries, "RETRY_DELAYS", (0.0, 0.0))
    places = ((images, "image_header"), (survey, "image_header"), (survey, "image_range"))
    asked = dict.fromkeys(range(3), 0)

    def flaky(number: int) -> Callable[[str], object]:
        original = getattr(*places[number])

        def read(path: str) -> object:
            if path.endswith("b.tiff"):
                asked[number] += 1
                if stays or asked[number] <= 2:
                    raise OSError(errno.EIO, "Input/output error")
            return original(path)

        return read

    for number, (module, name) in enumerate(places):
        monkeypatch.setattr(module, name, flaky(number))
    dataset = open_dataset("folder", tmp_path)
    level = dataset.survey().reading.white_level
    found = dataset.native_size(), dataset.is_grey(), level
    assert found == (((9, 40), True, 4095) if stays else ((7, 22), True, 65535))
    # Read once, and asked again as often as others; without a header there are no pixels.
    assert list(asked.values()) == [3, 3, 0 if stays else 3]
