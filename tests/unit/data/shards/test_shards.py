"""WebDataset shards: found, read in any order from disk, memory, HTTP and S3, each image once."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from torch.utils.data import DataLoader

from convit_ssl.data import ImageFiles, open_dataset
from convit_ssl.data.loading import shard_cache
from convit_ssl.data.loading import storage as storage_module
from convit_ssl.data.loading.paths import split_member
from convit_ssl.data.loading.samplers import WINDOW, EpochSampler
from convit_ssl.data.loading.samples import TooManyUnreadableError
from convit_ssl.data.loading.shard_cache import CACHE_VARIABLE
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.opening import find_listing
from convit_ssl.data.shards.tar import find_shards
from convit_ssl.errors import UserError
from tests.unit.data.make_shards import pixels, png, write_shard, write_shards


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own for tables of contents and copies; descriptors are closed after."""
    monkeypatch.setenv("CONVIT_SSL_DATA", str(tmp_path / "kept"))
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    storage_module._descriptor.cache_clear()
    yield tmp_path / "kept" / "shards"
    storage_module._descriptor.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "data")


@pytest.fixture
def in_memory(folder: Path) -> Iterator[str]:
    """The same shards at a URL."""
    system = fsspec.filesystem("memory")
    system.put(str(folder), "/data", recursive=True)
    yield "memory://data"
    system.rm("/data", recursive=True)


def contents(data_dir: str | Path, split: str = "train") -> list[tuple[Any, int]]:
    dataset = open_dataset("shards", data_dir, split)
    return [(np.asarray(dataset[i][0]).tolist(), dataset[i][1]) for i in range(len(dataset))]


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_and_labels_are_those_written(folder: Path, split: str) -> None:
    numbers = range(26) if split == "train" else range(900, 905)
    assert contents(folder, split) == [(pixels(n).tolist(), n % 3) for n in numbers]
    assert open_dataset("shards", folder, split).classes == ["0", "1", "2"]


def test_a_url_gives_the_same_images_and_digest(folder: Path, in_memory: str) -> None:
    assert contents(in_memory) == contents(folder)
    assert open_dataset("shards", in_memory).digest() == open_dataset("shards", folder).digest()


def test_any_image_can_be_read_by_itself(folder: Path) -> None:
    path = open_dataset("shards", folder).path(13)
    assert path.startswith(f"{folder}/train/0002.tar#") and path.endswith("/00013.png")
    assert read_bytes(path) == png(13)
    shard, offset, size = split_member(path) or ("", 0, 0)
    assert Path(shard).read_bytes()[offset : offset + size] == png(13)


@pytest.mark.parametrize("labels", ["word", "none"])
def test_names_of_classes_and_no_classes(tmp_path: Path, labels: str) -> None:
    listing = find_shards(write_shards(tmp_path / "data", labels=labels), "train")
    assert listing.classes == (["a", "b", "c"] if labels == "word" else [])
    assert listing.targets == [n % 3 if labels == "word" else -1 for n in range(26)]


def test_classes_are_those_of_both_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shard(tmp_path / "d" / "train" / "0.tar", range(9), "word")
    write_shard(tmp_path / "d" / "val" / "0.tar", range(1, 3), "word")  # no "a"
    val = find_shards(tmp_path / "d", "val")
    assert val.classes == ["a", "b", "c"] and val.targets == [1, 2]
    assert "val has no images of 1 of 3 classes (a)" in caplog.text


def test_classes_that_only_val_has(tmp_path: Path) -> None:
    write_shard(tmp_path / "d" / "train" / "0.tar", [0, 1, 3, 4], "word")
    write_shard(tmp_path / "d" / "val" / "0.tar", range(3), "word")
    with pytest.raises(UserError, match=r"val has classes that train lacks, in .*: c[.]"):
        find_shards(tmp_path / "d", "train")


def write_members(path: Path, names: list[str]) -> None:
    """A shard of images; a .cls holds what stands behind a colon."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, name in enumerate(names):
            name, _, label = name.partition(":")
            data = label.encode() if label else png(number)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(
    ("members", "images", "aside"),
    [
        (["0.jpg", "0.seg.png", "0.cls:1"], ["0.jpg"], "1 .seg.png"),
        (["0.seg.png", "0.jpg", "1.mask.png", "1.jpg"], ["0.jpg", "1.jpg"], "1 .seg.png, 1 .mask"),
        (["0.png", "0.jpg"], ["0.jpg"], "1 .png"),
        (["0.depth.png", "0.image.png"], ["0.image.png"], "1 .depth.png"),
        (["0.jpg", "1.seg.png"], ["0.jpg"], "1 .seg.png"),
        (["a/0.JPG", "b/0.jpg"], ["a/0.JPG", "b/0.jpg"], None),
        (["2020.01.jpg", "2020.02.jpg"], ["2020.01.jpg", "2020.02.jpg"], None),
        (["0.left.png", "0.right.png"], ["0.left.png", "0.right.png"], None),
        (["__MACOSX/0.jpg", "._0.jpg", "0.jpg"], ["0.jpg"], None),
    ],
)
def test_one_image_of_each_sample(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    members: list[str],
    images: list[str],
    aside: str | None,
) -> None:
    write_members(tmp_path / "d" / "train" / "0.tar", members)
    for _ in range(2):  # from the shard, and from the table that is kept
        files = find_shards(tmp_path / "d").files
        assert [file.partition("/")[2].partition("/")[2] for file in files] == images
    assert ("left aside" in caplog.text) == (aside is not None)
    assert caplog.text.count(aside or "left aside") == (1 if aside else 0)


def test_labels_of_shards_that_are_odd(tmp_path: Path) -> None:
    names = ["0.jpg", "0.cls:-1", "1.jpg", "1.cls:7", "2.jpg", "2.cls:\ufeff3"]
    write_members(tmp_path / "a" / "train" / "0.tar", names)
    listing = find_shards(tmp_path / "a")
    assert (listing.classes, listing.targets) == (["3", "7"], [-1, 1, 0])
    write_members(tmp_path / "b" / "train" / "0.tar", ["0.jpg", "0.cls:1", "0.cls:2"])
    with pytest.raises(UserError, match=r"0\.cls is in the shard .* twice, as 1 and as 2"):
        find_shards(tmp_path / "b")


def test_usual_names_of_splits_and_folders_called_tar(tmp_path: Path) -> None:
    for number, name in enumerate(("Train", "Validation", "test")):
        write_shard(tmp_path / "d" / name / "0.tar", range(10 * number, 10 * number + 3))
        (tmp_path / "d" / name / "folder.tar").mkdir()
    for number, split in enumerate(("train", "val", "test")):
        assert find_shards(tmp_path / "d", split).files[0].endswith(f"/{10 * number:05d}.png")


@pytest.mark.parametrize(
    ("names", "data_dir"),
    [
        (["imagenet-train-0000.tar", "imagenet-train-0001.tar", "imagenet-validation-00.tar"], ""),
        (["train-00.tar", "train-01.tar", "val-00.tar"], ""),
        (["a-train-8.tar", "a-train-9.tar", "a-val-8.tar", "a-val-9.tar"], "a-{split}-{8..9}.tar"),
        (["in_train_09.tar", "in_train_10.tar"], "in_train_{09..10}.tar"),
        (["00.tar", "01.tar"], ""),
    ],
)
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_ways_to_name_shards(names: list[str], data_dir: str, where: str, tmp_path: Path) -> None:
    for number, name in enumerate(names):
        write_shard(tmp_path / "d" / name, range(10 * number, 10 * number + 3))
    root = str(tmp_path / "d")
    if where == "memory":
        fsspec.filesystem("memory").put(root, "/ways", recursive=True)
        root = "memory://ways"
    try:
        given = f"{root}/{data_dir}" if data_dir else root
        train = find_listing("shards", given, "train")
        assert [name.rpartition("/")[2] for name in train.files] == [
            f"{number:05d}.png" for first in (0, 10) for number in range(first, first + 3)
        ]
        if any("val" in name for name in names):
            assert find_listing("shards", given, "val").files[0].endswith("/00020.png")
        else:
            with pytest.raises(UserError, match=r"no \.tar shards for val"):
                find_listing("shards", given, "val")
    finally:
        if where == "memory":
            fsspec.filesystem("memory").rm("/ways", recursive=True)


def test_contents_are_read_once_and_again_after_a_change(folder: Path, kept: Path) -> None:
    find_shards(folder)
    (tables,) = [list(kept.glob("contents-*.json"))]
    assert len(tables) == 2  # train and val
    before = {table: table.stat().st_mtime_ns for table in tables}
    find_shards(folder)
    assert {table: table.stat().st_mtime_ns for table in kept.glob("contents-*.json")} == before
    write_shard(folder / "train" / "0000.tar", range(100, 102))
    assert len(find_shards(folder).files) == 26 - 5 + 2


def test_a_damaged_table_of_contents_is_read_again(
    folder: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = find_shards(folder)
    for table in kept.glob("contents-*.json"):
        table.write_text(table.read_text().replace('", 1', '", 2'))
    assert find_shards(folder) == expected
    assert "is damaged; reading the contents" in capsys.readouterr().err
    capsys.readouterr()
    assert find_shards(folder) == expected
    assert capsys.readouterr().err == ""


def test_another_label_under_the_same_size_and_time(folder: Path, kept: Path) -> None:
    before = find_shards(folder)
    path = folder / "train" / "0000.tar"
    state, data = path.stat(), bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        label = next(member for member in archive if member.name.endswith(".cls"))
    labels = sorted(set(before.targets))
    old = bytes(data[label.offset_data : label.offset_data + label.size])
    data[label.offset_data] ^= 1  # 0 becomes 1, 2 becomes 3
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert old.strip().isdigit() and len(labels) > 1
    assert find_shards(folder).targets != before.targets


def test_loader_workers_read_a_url(in_memory: str) -> None:
    dataset = open_dataset("shards", in_memory)
    loader: Any = DataLoader(dataset, batch_size=None, num_workers=2, sampler=EpochSampler(26))
    seen = {int(index): np.asarray(image) for image, _, index in loader}
    assert all((seen[number] == pixels(number)).all() for number in range(26))


def test_copies_are_kept_within_their_room(
    in_memory: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = fsspec.filesystem("memory").size("/data/train/0003.tar")
    monkeypatch.setenv(CACHE_VARIABLE, str(2.5 * size / 2**30))
    asked: list[str] = []
    plain = storage_module.remote
    for module in (storage_module, shard_cache):
        monkeypatch.setattr(module, "remote", lambda url: asked.append(url) or plain(url))
    assert len(contents(in_memory)) == 26
    copies = list(kept.glob("*.tar"))
    assert 1 <= len(copies) <= 2
    assert not list(kept.glob(".*partial"))
    storage_module._descriptor.cache_clear()
    before = len(asked)
    last = open_dataset("shards", in_memory).path(25)
    assert read_bytes(last) == png(25)
    assert len(asked) == before  # from the copy


def test_a_room_that_is_no_number(in_memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "much")
    with pytest.raises(UserError, match="CONVIT_SSL_SHARD_CACHE='much' is not a number"):
        find_shards(in_memory)


def test_a_sampler_reads_few_shards_at_a_time_and_each_image_once() -> None:
    groups = [5 + number % 3 for number in range(3 * WINDOW)]
    sampler = EpochSampler(sum(groups), groups=groups, seed=1)
    shard_of = np.repeat(np.arange(len(groups)), groups)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        order = list(sampler)
        orders.append(order)
        assert sorted(order) == list(range(sum(groups)))
        shards = shard_of[order]
        first = [int(np.flatnonzero(shards == s)[0]) for s in range(len(groups))]
        last = [int(np.flatnonzero(shards == s)[-1]) for s in range(len(groups))]
        open_at_once = [
            sum(a <= i <= b for a, b in zip(first, last, strict=True)) for i in range(len(order))
        ]
        assert max(open_at_once) <= WINDOW
    assert orders[0] != orders[1]
    # Whoever goes on, and wherever: what is left of the same order, shared out.
    parts = [
        EpochSampler(sum(groups), groups=groups, seed=1, rank=rank, world_size=3)
        for rank in (0, 1, 2)
    ]
    for part in parts:
        part.set_epoch(1, 20)
    taken = [list(part) for part in parts]
    together = [taken[i % 3][i // 3] for i in range(sum(groups) - 20)]
    assert together == orders[1][20:]


def test_groups_are_the_shards_also_of_a_subset(folder: Path) -> None:
    assert open_dataset("shards", folder).groups() == [5, 6, 7, 8]
    part = open_dataset("shards", folder, subset="per_class=3,seed=0")
    assert sum(part.groups()) == len(part) == 9


def test_a_damaged_image_is_named_and_replaced(tmp_path: Path) -> None:
    write_shard(tmp_path / "d" / "train" / "0.tar", range(12))
    dataset = open_dataset("shards", tmp_path / "d")
    shard, offset, _ = split_member(dataset.path(4)) or ("", 0, 0)
    with open(shard, "r+b") as file:
        file.seek(offset)
        file.write(b"damage")
    image, target, index = dataset[4]
    assert target == 1 and index != 4  # another one of its class, by its own number
    assert image.tobytes() == dataset[index][0].tobytes()
    (fault,) = dataset.reader.fault_log.read()
    assert fault == dataset.path(4)


def test_a_shard_that_shrinks_while_it_is_read(folder: Path) -> None:
    dataset = open_dataset("shards", folder, max_corrupt=0.0)
    shard = folder / "train" / "0001.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(TooManyUnreadableError, match="the shard is cut short: "):
        [dataset[i] for i in range(len(dataset))]


def test_an_error_on_the_way_is_tried_again(
    in_memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset("shards", in_memory)
    monkeypatch.setattr("convit_ssl.data.loading.retries.RETRY_DELAYS", (0.0, 0.0))
    system = type(fsspec.filesystem("memory"))
    plain, failures = system.cat_file, [1, 1]

    def flaky(self: Any, path: str, **options: Any) -> bytes:
        if failures:
            failures.pop()
            raise RuntimeError("502 Bad Gateway")
        return bytes(plain(self, path, **options))

    monkeypatch.setattr(system, "cat_file", flaky)
    assert (np.asarray(dataset[0][0]) == pixels(0)).all()
    assert not failures and not dataset.reader.fault_log.read()


def test_a_data_set_travels_to_other_processes(folder: Path) -> None:
    dataset = open_dataset("shards", folder)
    copy: ImageFiles = pickle.loads(pickle.dumps(dataset))
    assert (np.asarray(copy[7][0]) == pixels(7)).all()


def _refused(folder: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        find_shards(folder)
    assert "Traceback" not in str(caught.value)


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    place = tmp_path / "d" / "train" / "0.tar"
    write_shard(place, range(5))
    whole = place.read_bytes()
    for data in (b"", b"no tar at all" * 100, whole[: len(whole) // 3]):
        place.write_bytes(data)
        _refused(tmp_path / "d", r"the shard .*0\.tar (is incomplete|holds no images)")
    import gzip

    place.write_bytes(gzip.compress(whole))
    _refused(tmp_path / "d", "not an uncompressed tar file")


def test_labels_that_are_none(tmp_path: Path) -> None:
    place = tmp_path / "d" / "train" / "0.tar"
    place.parent.mkdir(parents=True)
    for label, words in (
        (b"\xff\xfe", "is not a line of text"),
        (b"a\nb", "is not a line of text"),
        (b"x" * 5000, "is not a line of text"),
        (b"99999999999", "found label 99999999999"),
    ):
        with tarfile.open(place, "w") as archive:
            for name, data in (("1.png", png(1)), ("1.cls", label)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        _refused(tmp_path / "d", words)


def test_labels_for_some_images_only(tmp_path: Path) -> None:
    write_shard(tmp_path / "d" / "train" / "0.tar", range(5))
    write_shard(tmp_path / "d" / "train" / "1.tar", range(5, 8), "none")
    _refused(tmp_path / "d", r"3 of 8 images .* have no label \(the first is number 6\)")


@pytest.mark.parametrize(
    ("data_dir", "words"),
    [
        ("", "data=shards needs data_dir="),
        ("/no/such/folder", "does not exist"),
        ("gopher://host/data", "cannot be read|Protocol not known"),
        ("memory://nothing", r"no \.tar shards for train in memory://nothing"),
        ("/{0..3}/a.tar", "braces are only allowed in the file name"),
    ],
)
def test_places_without_shards(data_dir: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_dataset("shards", data_dir)
