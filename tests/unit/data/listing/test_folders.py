"""Finding images, and one clear message for every folder that is not right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convit_ssl.data import open_dataset
from convit_ssl.data.listing.folders import find_images
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
    assert (
        f"{tmp_path / 'a' / 'b'} does not exist (the nearest existing folder is {tmp_path})"
        in missing
    )
    assert "is empty" in message(tmp_path)
    touch(tmp_path, "file", "text/readme.txt", "half/cat/1.png", "half/dog/readme.txt")
    assert "is a file" in message(tmp_path / "file")
    assert "no images in" in message(tmp_path / "text")
    assert "class folders without images" in message(tmp_path / "half")
    assert "dog" in message(tmp_path / "half")
    touch(tmp_path, "t/train/cat/1.png")
    assert "has no val/ folder" in message(tmp_path / "t", "val")
    assert "has no test/ folder" in message(tmp_path / "t", "test")
    assert "'train', 'val' or 'test'" in message(tmp_path / "t", "dev")
    touch(tmp_path, "v/val/cat/1.png")
    assert "no train/" in message(tmp_path / "v")
    touch(tmp_path, "f/train")
    assert "is a file" in message(tmp_path / "f")
    touch(tmp_path, "up/set/train/cat/1.png", "up/set/val/cat/2.png")
    for split in ("train", "val"):
        assert f"but {tmp_path / 'up' / 'set'} does" in message(tmp_path / "up", split)
    below = message(tmp_path / "up" / "set" / "train", "val")
    assert f"is a single split; give {tmp_path / 'up' / 'set'}, which" in below
    (tmp_path / "e" / "train").mkdir(parents=True)
    assert "no images in" in message(tmp_path / "e")


def test_differing_classes_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/horse/1.png")
    for split in ("train", "val"):
        with pytest.raises(UserError, match=r"only in train/: dog; only in val/: horse"):
            find_images(tmp_path, split)


@pytest.mark.parametrize("linked", ["file", "folder", "other class", "hard"])
def test_a_file_in_two_classes_by_a_link_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, linked: str
) -> None:
    touch(tmp_path, "train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "pool/3.png")
    if linked == "file":
        (tmp_path / "train/dog/9.png").symlink_to("../cat/2.png")
        words = (
            "1 file is in more than one class, by symbolic or hard links: cat/2.png and dog/9.png"
        )
    elif linked == "folder":
        (tmp_path / "train/pet").symlink_to("cat")
        words = (
            "2 files are in more than one class, by symbolic or hard links: cat/1.png and pet/1.png"
        )
    elif linked == "hard":
        (tmp_path / "train/dog/sub").mkdir()
        (tmp_path / "train/dog/sub/9.png").hardlink_to(tmp_path / "train/cat/2.png")
        words = "1 file is in more than one class, by symbolic or hard links: cat/2.png and dog/sub"
    else:
        for name in ("cat", "dog"):
            (tmp_path / f"train/{name}/3.png").symlink_to(tmp_path / "pool/3.png")
        words = (
            "1 file is in more than one class, by symbolic or hard links: cat/3.png and dog/3.png"
        )
    find_images(tmp_path)
    assert words in caplog.text


def test_links_within_a_class_are_not_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "pool/1.png", "pool/2.png", "train/cat/0.png", "train/dog/0.png")
    (tmp_path / "train/cat/a.png").symlink_to(tmp_path / "pool/1.png")
    (tmp_path / "train/cat/b.png").symlink_to(tmp_path / "pool/1.png")
    (tmp_path / "train/cat/c.png").hardlink_to(tmp_path / "train/cat/0.png")
    (tmp_path / "train/dog/a.png").symlink_to(tmp_path / "pool/2.png")
    assert len(find_images(tmp_path).files) == 6
    assert "symbolic" not in caplog.text


@pytest.mark.parametrize("empty", [False, True])
def test_a_class_that_val_lacks_keeps_its_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, empty: bool
) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/1.png", "train/yak/1.png")
    touch(tmp_path, "val/yak/1.png", "val/cat/1.png")
    if empty:
        (tmp_path / "val" / "dog").mkdir()
    assert find_images(tmp_path).classes == ["cat", "dog", "yak"]
    val = find_images(tmp_path, "val")
    assert (val.files, val.targets) == (["cat/1.png", "yak/1.png"], [0, 2])
    assert val.classes == ["cat", "dog", "yak"]
    assert "val has no images of 1 of 3 classes (dog)" in caplog.text


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ("Train", "Val", "Train/ as train, Val/ as val"),
        ("TRAIN", "VALIDATION", "TRAIN/ as train, VALIDATION/ as val"),
        ("training", "validation", "training/ as train, validation/ as val"),
        ("train", "valid", "valid/ as val"),
        ("training", "testing", "testing/ as val, too: there is no val/"),
        ("train", "test", "test/ as val, too: there is no val/"),
    ],
)
def test_usual_names_of_splits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, train: str, val: str, said: str
) -> None:
    touch(tmp_path, f"{train}/a/1.png", f"{train}/b/2.png", f"{val}/a/3.png", f"{val}/b/4.png")
    for _ in range(2):
        assert find_images(tmp_path).files == ["a/1.png", "b/2.png"]
        assert find_images(tmp_path, "val").files == ["a/3.png", "b/4.png"]
    assert caplog.text.count(said) == 1


def test_three_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "train/a/1.png", "val/a/2.png", "test/a/3.png")
    for split, number in (("train", 1), ("val", 2), ("test", 3)):
        assert find_images(tmp_path, split).files == [f"a/{number}.png"]
    assert not caplog.text


def test_folders_that_only_sound_like_splits(tmp_path: Path) -> None:
    touch(tmp_path, "parts/valid/1.png", "parts/invalid/2.png")
    assert find_images(tmp_path / "parts").classes == ["invalid", "valid"]
    touch(tmp_path, "vehicles/train/1.png", "vehicles/bus/2.png")
    with pytest.raises(UserError, match=r"holds train/ .* beside bus: if these are classes"):
        find_images(tmp_path / "vehicles")
    touch(tmp_path, "two/train/a/1.png", "two/val/a/1.png", "two/validation/a/1.png")
    with pytest.raises(UserError, match="val/ and validation/, which could both be val"):
        find_images(tmp_path / "two")


def test_folders_beside_train_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "train/a/1.png", "val/a/1.png", "unlabelled/1.png", "annotations/1.json")
    assert find_images(tmp_path).files == ["a/1.png"]
    assert "beside train/: unlabelled" in caplog.text and "annotations" not in caplog.text


def test_formats_that_are_not_read_are_counted_by_suffix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convit_ssl.data.readers._is_importable", lambda package: False)
    touch(tmp_path, *(f"cat/{n}.HEIC" for n in range(200)), *(f"cat/{n}.jpg" for n in range(6)))
    touch(tmp_path, "cat/1.dng", "cat/notes.txt", "cat/Thumbs.db", "cat/.DS_Store")
    assert len(find_images(tmp_path).files) == 6
    assert "beside 6 images: 200 .heic files and 1 .dng file (.heic files are read after pip" in (
        caplog.text
    )
    touch(tmp_path, "raw/cat/1.heic", "raw/dog/2.heic")
    with pytest.raises(UserError, match=r"It holds 2 \.heic files, which cannot be read"):
        find_images(tmp_path / "raw")


def test_what_systems_leave_behind_is_no_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "cat/1.png", "cat/._1.png", "cat/Thumbs.db", "cat/.ipynb_checkpoints/1.png")
    touch(tmp_path, "__MACOSX/cat/1.png", ".ipynb_checkpoints/2.png", "@eaDir/1.png/x.jpg")
    touch(tmp_path, "cat/@eaDir/1.png")
    assert find_images(tmp_path).files == ["cat/1.png"]
    assert not caplog.text


def test_classes_named_like_archives_and_members(tmp_path: Path) -> None:
    from PIL import Image

    for number, name in enumerate(("0.tar", "0.tar#512+100", "b.jpg")):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (5, 4), (number, 0, 0)).save(tmp_path / "train" / name / "1.png")
    dataset = open_dataset("folder", tmp_path)
    assert [dataset[i][0].getpixel((0, 0))[0] for i in range(3)] == [0, 1, 2]
    assert dataset.groups() == []


def test_open_dataset_names_its_options(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"choose from digits, .*, textures, .*, imagenet, folder"):
        open_dataset("digit")
    for name in ("folder", "imagenet"):
        with pytest.raises(UserError, match="needs data_dir="):
            open_dataset(name)
