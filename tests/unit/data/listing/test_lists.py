"""Collections that are written down in a list."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest

from convit_ssl.data import open_dataset
from convit_ssl.errors import UserError
from tests.unit.data.make_shards import pixels, png


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "some where").mkdir()
    for number in range(6):
        (tmp_path / "some where" / f"{number}.png").write_bytes(png(number))
    return tmp_path


def write(folder: Path, text: str, split: str = "train") -> Path:
    (folder / f"{split}.txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("line", "classes", "targets"),
    [
        ("some where/{}.png", [], [-1] * 6),
        ("some where/{}.png {}", ["0", "1", "2"], [0, 1, 2, 0, 1, 2]),
        ("some where/{}.png\tcat{}", ["cat0", "cat1", "cat2"], [0, 1, 2, 0, 1, 2]),
        ("{root}/some where/{}.png  00{}", ["0", "1", "2"], [0, 1, 2, 0, 1, 2]),
        ("some where/{}.png open water {}", [f"open water {n}" for n in "012"], [0, 1, 2] * 2),
    ],
)
def test_forms_of_a_line(folder: Path, line: str, classes: list[str], targets: list[int]) -> None:
    lines = [line.format(n, n % 3, root=folder) for n in range(6)]
    write(folder, "# a comment\n\n" + "\n".join(lines) + "\n")
    dataset = open_dataset("list", folder)
    assert dataset.classes == classes
    assert list(dataset.targets) == targets
    assert all((np.asarray(dataset[n][0]) == pixels(n)).all() for n in range(6))


def test_val_and_a_list_by_itself(folder: Path) -> None:
    write(folder, "some where/0.png a\nsome where/1.png b\n")
    write(folder, "some where/2.png b\n", "val")
    assert list(open_dataset("list", folder, "val").targets) == [1]
    assert len(open_dataset("list", folder / "train.txt")) == 2
    with pytest.raises(UserError, match="a list of training images only"):
        open_dataset("list", folder / "train.txt", "val")


def test_classes_that_only_val_has(folder: Path) -> None:
    write(folder, "some where/0.png 0\nsome where/1.png 01\n")
    write(folder, "some where/2.png 1\nsome where/3.png 3\nsome where/4.png 2\n", "val")
    for split in ("train", "val"):
        with pytest.raises(UserError, match=r"val has classes that train lacks, in .*: 2, 3[.]"):
            open_dataset("list", folder, split)
    write(folder, "some where/2.png\n", "val")
    assert len(open_dataset("list", folder, "val")) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_lists_of_excel_notepad_and_powershell(folder: Path, encoding: str) -> None:
    text = "".join(f"some where/{n}.png bäume{n % 2}\r\n" for n in range(6))
    marked = text if encoding in ("utf-8-sig", "utf-16") else "\ufeff" + text
    (folder / "train.txt").write_bytes(marked.encode(encoding))
    dataset = open_dataset("list", folder)
    assert dataset.classes == ["bäume0", "bäume1"]
    assert [(np.asarray(dataset[n][0]) == pixels(n)).all() for n in range(6)] == [True] * 6


def test_minus_one_is_no_class(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, "".join(f"some where/{n}.png {n % 3 - 1}\n" for n in range(6)))
    dataset = open_dataset("list", folder)
    assert dataset.classes == ["0", "1"]
    assert list(dataset.targets) == [-1, 0, 1, -1, 0, 1]
    assert "2 of 6 images in" in caplog.text and "their label is -1" in caplog.text
    write(folder, "".join(f"some where/{n}.png {'-1' if n else 'cat'}\n" for n in range(6)))
    assert open_dataset("list", folder).classes == ["cat"]
    write(folder, "".join(f"some where/{n}.png -1\n" for n in range(6)))
    assert not open_dataset("list", folder).labelled
    chosen = open_dataset("list", folder, subset="fraction=0.5")
    assert len(chosen) == 3


def test_numbers_with_gaps_are_as_many_classes_as_there_are(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, "".join(f"some where/{n}.png {(5, 700, 12)[n % 3]}\n" for n in range(6)))
    dataset = open_dataset("list", folder)
    assert dataset.classes == ["5", "12", "700"]
    assert list(dataset.targets) == [0, 2, 1, 0, 2, 1]
    assert "there are 3 classes, 5 to 700" in caplog.text


def test_a_file_twice_under_one_class_is_taken_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["some where/0.png a", "some where/1.png b", "./some where/0.png a"]
    write(folder, "\n".join([*lines, f"{folder}/some where/1.png b"]))
    assert len(open_dataset("list", folder)) == 2
    assert "2 of 4 lines of" in caplog.text and "repeat a file" in caplog.text


def test_a_symbolic_link_is_the_file_that_it_leads_to(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "link.png").symlink_to(folder / "some where" / "0.png")
    (folder / "again").symlink_to("some where", target_is_directory=True)
    for other in ("link.png", "again/0.png", "again/../some where/0.png"):
        write(folder, f"some where/0.png a\nsome where/1.png b\n{other} b\n")
        with pytest.raises(UserError, match=r"is in the list .* twice, as a and as b"):
            open_dataset("list", folder)
        write(folder, f"some where/0.png a\nsome where/1.png b\n{other} a\n")
        assert len(open_dataset("list", folder)) == 2
    write(folder, "again/0.png a\n", "val")
    open_dataset("list", folder, "val")
    assert "1 of 1 images of val are also in train" in caplog.text


def test_a_hard_link_is_the_file_that_it_shares(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "link.png").hardlink_to(folder / "some where" / "0.png")
    write(folder, "some where/0.png a\nsome where/1.png b\nlink.png b\n")
    with pytest.raises(
        UserError, match=r"link\.png is in .* as a and as b \(by a link: some where"
    ):
        open_dataset("list", folder)
    write(folder, "some where/0.png a\nsome where/1.png b\nlink.png a\n")
    assert len(open_dataset("list", folder)) == 2
    write(folder, "link.png a\n", "val")
    open_dataset("list", folder, "val")
    assert "1 of 1 images of val are also in train" in caplog.text


def test_a_class_without_images_in_val_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, "some where/0.png a\nsome where/1.png b\nsome where/2.png c\n")
    write(folder, "some where/3.png b\nsome where/4.png -1\n", "val")
    assert open_dataset("list", folder, "val").classes == ["a", "b", "c"]
    assert "val has no images of 2 of 3 classes (a, c)" in caplog.text


def test_images_of_val_that_are_in_train_are_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, "some where/0.png a\nsome where/1.png b\n")
    write(folder, "some where/1.png b\nsome where/2.png a\n", "val")
    open_dataset("list", folder, "val")
    assert "1 of 2 images of val are also in train" in caplog.text


def test_three_lists_and_usual_names(folder: Path) -> None:
    for number, name in enumerate(("Training", "validation", "test")):
        write(folder, f"some where/{number}.png a\n", name)
    for number, split in enumerate(("train", "val", "test")):
        assert list(open_dataset("list", folder, split).files) == [f"some where/{number}.png"]


def test_a_list_at_a_url(folder: Path) -> None:
    write(folder, "some where/3.png\nsome where/4.png\n")
    system = fsspec.filesystem("memory")
    system.put(str(folder), "/lists", recursive=True)
    try:
        dataset = open_dataset("list", "memory://lists")
        assert dataset.path(0) == "memory://lists/some where/3.png"
        assert (np.asarray(dataset[1][0]) == pixels(4)).all()
    finally:
        system.rm("/lists", recursive=True)


def test_missing_images_are_reported_like_others(folder: Path) -> None:
    write(folder, "".join(f"some where/{n}.png 0\n" for n in (0, 1, 2, 3, 77)))
    dataset = open_dataset("list", folder, max_corrupt=0.3)
    dataset[4]
    assert list(dataset.reader.fault_log.read()) == [f"{folder}/some where/77.png"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"the list .*train\.txt does not exist"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("picture\n", "line 1 of .* does not name an image: 'picture'"),
        ("some where/0.png 1 2\n", "does not name an image"),
        ("some where/0.png,1\n", "does not name an image.*space or tab and the class"),
        ("a.png 1\nb.png\n", "1 of 2 images .* have no label"),
        ("a.png 5000000\n", "found label 5000000"),
        ("a.png 0\nb.png -2\n", r"labels must be numbers from 0, or -1 .* found -2 in"),
        ("a.png cat\nb.png cat\na.png dog\n", r"a.png is in the list .* twice, as cat and as dog"),
        ("a.png cat\n./a.png -1\n", r"twice, as cat and as -1"),
        ("a.png 0\na\0b.png 0\n", r"line 2 of .*train\.txt contains a NUL byte"),
    ],
)
def test_lists_that_are_none(folder: Path, text: str | None, words: str) -> None:
    if text is not None:
        write(folder, text)
    with pytest.raises(UserError, match=words):
        open_dataset("list", folder)


def test_bytes_are_no_list(folder: Path) -> None:
    (folder / "train.txt").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="is not a text file"):
        open_dataset("list", folder)


@pytest.mark.timeout(20)
def test_a_pipe_is_no_list(folder: Path) -> None:
    os.mkfifo(folder / "train.txt")
    with pytest.raises(UserError, match=r"cannot read the list .* a pipe or a device"):
        open_dataset("list", folder)
