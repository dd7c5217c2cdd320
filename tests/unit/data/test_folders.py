"""Finding images, and one clear message for every folder that is not right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convit_ssl.data import open_dataset
from convit_ssl.data.folders import find_images
from convit_ssl.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_classes_and_order(tmp_path: Path) -> None:
    touch(tmp_path, "train/b/2.JPG", "train/b/10.jpeg", "train/a/z.PNG", "train/a/deep/er/1.webp")
    touch(tmp_path, "train/a/notes.txt", "train/a/.hidden.png", "train/.cache/1.png")
    touch(tmp_path, "val/a/1.png", "val/b/1.tiff")
    listing = find_images(tmp_path)
    assert listing.files == ["a/z.PNG", "a/deep/er/1.webp", "b/10.jpeg", "b/2.JPG"]
    assert listing.targets == [0, 0, 1, 1]
    assert listing.classes == ["a", "b"]
    assert find_images(tmp_path, "val").files == ["a/1.png", "b/1.tiff"]


def test_flat_folder_and_flat_train_have_no_labels(tmp_path: Path) -> None:
    touch(tmp_path / "one", "b.png", "a.jpg")
    touch(tmp_path / "two", "train/x.png")
    for name, files in (("one", ["a.jpg", "b.png"]), ("two", ["x.png"])):
        listing = find_images(tmp_path / name)
        assert listing.files == files
        assert listing.targets == [-1] * len(files)
        assert not listing.labelled


def test_classes_directly_in_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    assert find_images(tmp_path).classes == ["cat", "dog"]


def test_images_beside_folders_are_one_collection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "1.png", "holiday/2.png")
    listing = find_images(tmp_path)
    assert (listing.files, listing.targets) == (["1.png", "holiday/2.png"], [-1, -1])
    assert "without labels" in caplog.text


def test_link_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png")
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    assert find_images(tmp_path).files == ["cat/1.png"]


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert find_images(tmp_path).files == ["cat/1.png"]


def test_messages(tmp_path: Path) -> None:
    def message(folder: Path, split: str = "train") -> str:
        with pytest.raises(UserError) as caught:
            find_images(folder, split)
        return str(caught.value)

    missing = message(tmp_path / "a" / "b")
    assert f"{tmp_path / 'a' / 'b'} does not exist (the nearest folder is {tmp_path})" in missing
    assert "is empty" in message(tmp_path)
    touch(tmp_path, "file", "text/readme.txt", "half/cat/1.png", "half/dog/readme.txt")
    assert "is a file" in message(tmp_path / "file")
    assert "no images in" in message(tmp_path / "text")
    assert "class folders without images" in message(tmp_path / "half")
    assert "dog" in message(tmp_path / "half")
    touch(tmp_path, "t/train/cat/1.png")
    assert "has no val/ folder" in message(tmp_path / "t", "val")
    assert "'train' or 'val'" in message(tmp_path / "t", "test")
    touch(tmp_path, "v/val/cat/1.png")
    assert "no train/" in message(tmp_path / "v")
    touch(tmp_path, "f/train")
    assert "is a file" in message(tmp_path / "f")
    touch(tmp_path, "up/set/train/cat/1.png", "up/set/val/cat/2.png")
    for split in ("train", "val"):
        assert f"but {tmp_path / 'up' / 'set'} does" in message(tmp_path / "up", split)
    below = message(tmp_path / "up" / "set" / "train", "val")
    assert f"is one split; give {tmp_path / 'up' / 'set'}, which" in below
    (tmp_path / "e" / "train").mkdir(parents=True)
    assert "no images in" in message(tmp_path / "e")


def test_differing_classes_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/horse/1.png")
    for split in ("train", "val"):
        with pytest.raises(UserError, match=r"only in train/: dog; only in val/: horse"):
            find_images(tmp_path, split)


def test_open_dataset_names_its_options(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one of digits, .*, textures, imagenet, folder"):
        open_dataset("digit")
    for name in ("folder", "imagenet"):
        with pytest.raises(UserError, match="needs data_dir="):
            open_dataset(name)
