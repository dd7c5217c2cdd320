"""Built-in data sets as folders: whole or not at all, the same everywhere."""

from __future__ import annotations

import gzip
import multiprocessing
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.cli.main import run_command
from convit_ssl.data import open_dataset
from convit_ssl.data.images import files_digest
from convit_ssl.data.sources import elpv, fashion, openclipart, textures
from convit_ssl.data.sources.builtin import SOURCES, materialise
from convit_ssl.errors import UserError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVIT_SSL_DATA", str(cache))


def test_digits_are_sklearns_and_raw_pixels_give_975() -> None:
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    pixels = {}
    for split, count in (("train", 1000), ("val", 797)):
        dataset = open_dataset("digits", split=split)
        assert len(dataset) == count
        assert dataset.native_size() == (8, 8)
        assert dataset.is_grey()
        arrays = [np.asarray(image)[..., 0].ravel() for image, _, _ in dataset]
        pixels[split] = np.stack(arrays), np.array(dataset.targets)
    both = np.concatenate([values for values, _ in pixels.values()])
    originals = np.rint(load_digits().data * 255 / 16)
    assert sorted(map(tuple, both)) == sorted(map(tuple, originals))
    probe = KNeighborsClassifier(5).fit(*pixels["train"])
    assert probe.score(*pixels["val"]) == pytest.approx(0.975, abs=0.001)


# Of every 50th image: figures of different versions are comparable only on one split.
DIGESTS = {"train": "7112b380c12db403", "val": "df77990a98de29f6"}


def test_the_split_never_changes() -> None:
    for split, digest in DIGESTS.items():
        dataset = open_dataset("digits", split=split)
        content = [np.asarray(dataset[i][0])[..., 0].tobytes() for i in range(0, len(dataset), 50)]
        assert files_digest([part.hex() for part in content]) == digest


def test_mnist5k_is_stratified() -> None:
    for split, per_class in (("train", 400), ("val", 100)):
        dataset = open_dataset("mnist5k", split=split)
        assert np.bincount(dataset.targets).tolist() == [per_class] * 10
        assert dataset.native_size() == (28, 28)


TEXTURES_MEANS = {"train": 123.91, "val": 123.56}


def test_textures_are_the_same_everywhere_and_tell_their_classes() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    colours = {}
    for split, per_class in (("train", 20), ("val", 5)):
        dataset = open_dataset("textures", split=split)
        assert np.bincount(dataset.targets).tolist() == [per_class] * 196
        assert dataset.native_size() == (64, 64) and not dataset.is_grey()
        images = np.stack([np.asarray(image) for image, _, _ in dataset])
        colours[split] = images.mean(axis=(1, 2)), np.array(dataset.targets)
        # Not a digest: another processor may round the last grey level differently.
        assert images.mean() == pytest.approx(TEXTURES_MEANS[split], abs=0.2)
    probe = KNeighborsClassifier(5).fit(*colours["train"])
    assert 0.5 < probe.score(*colours["val"]) < 0.7, "mean colour alone tells some of them"


def _pixels(number: int, split: str, count: int) -> set[tuple[int, int, int]]:
    """(field, row, column) of everything that the first ``count`` images of a class show."""
    return {
        (crop.field, row, column)
        for crop in textures.draw(number, split)[1][:count]
        for row in range(crop.top, crop.top + crop.side)
        for column in range(crop.left, crop.left + crop.side)
    }


@pytest.mark.parametrize("per_class", [1, 3, 4, 20])
def test_no_pixel_of_val_or_test_textures_is_in_train(per_class: int) -> None:
    for number in (0, 97, 195):
        train = _pixels(number, "train", per_class)
        for split in ("val", "test"):
            assert len(train & _pixels(number, split, 5)) == 0


def test_fields_of_different_splits_are_different_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole fields, compared where one lies on the other: only lattices are alike by chance."""
    monkeypatch.setattr(textures, "_photograph", lambda texture, crop, random: texture)
    alike = []
    for number in range(0, 196, 15):
        train, val, test = (
            textures.draw(number, split)[0][0].mean(axis=2).ravel() for split in textures.COUNTS
        )
        alike.append(np.abs(np.corrcoef([train, val, test])[np.triu_indices(3, 1)]))
    assert np.max(alike) < 0.9
    assert np.median(alike) < 0.1


def test_textures_do_not_depend_on_opencv() -> None:
    source = Path(textures.__file__).read_text()
    assert "cv2" not in source


def test_textures_of_an_earlier_version_are_not_taken_for_these(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for number in range(4900):
        (tmp_path / "train" / f"{number}.png").touch()
    with pytest.raises(UserError, match=r"complete textures data set \(version 2\)"):
        materialise("textures", tmp_path)


def test_colours_and_modes_are_kept_small(cache: Path) -> None:
    materialise("digits")
    with Image.open(next((cache / "digits" / "val" / "3").iterdir())) as image:
        assert image.mode == "L"


def _materialise(folder: str) -> str:
    return str(materialise("digits", folder))


def test_many_processes_at_once_see_one_complete_folder(tmp_path: Path) -> None:
    target = str(tmp_path / "digits")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert set(pool.map(_materialise, [target] * 4)) == {target}
    assert [entry.name for entry in tmp_path.iterdir()] == ["digits"]
    assert len(open_dataset("folder", target)) == 1000


def test_a_folder_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="does not contain the complete digits"):
        materialise("digits", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="already exists"):
        materialise("digits", tmp_path / "file")
    with pytest.raises(UserError, match="cannot write to"):
        materialise("digits", tmp_path / "file" / "below")
    with pytest.raises(UserError, match="your own folder"):
        materialise("imagenet", tmp_path / "x")


def write_idx(path: Path, array: np.ndarray, zipped: bool) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if zipped else data)


def fake_fashion(folder: Path, zipped: bool = True) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".gz" if zipped else ""
    for prefix, count in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28))
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images, zipped)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count) % 10, zipped)


@pytest.mark.parametrize("place", ["", "raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_is_found_and_read(tmp_path: Path, place: str, zipped: bool) -> None:
    fake_fashion(tmp_path / place, zipped)
    splits = fashion.load(tmp_path)
    assert splits["train"][0].shape == (40, 28, 28)
    assert splits["val"][1].tolist() == [*range(10)] * 2
    assert len(SOURCES["fashion_mnist"].classes) == 10


def test_fashion_mnist_messages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dataset-fashion-mnist"):
        fashion.load(tmp_path)
    fake_fashion(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    for broken in (whole[:500], b"", b"\0\0\x09\x03", gzip.compress(b"\0\0\x08\x03")):
        images.write_bytes(broken)
        with pytest.raises(UserError, match="cannot read"):
            fashion.load(tmp_path)
    fake_fashion(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(39), True)
    with pytest.raises(UserError, match="belong together"):
        fashion.load(tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("data", ["digits", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "1,000 images, 10 classes, 8 x 8 pixels" in said
    assert len(said.splitlines()) == 4
    assert run_command("data", ["digitz"]) == 2
    assert "choose from digits" in capsys.readouterr().err


def fake_elpv(folder: Path, cells: int = 60) -> Path:
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(cells):
        Image.new("L", (30, 30), number).save(folder / "images" / f"cell{number:04d}.png")
        probability = (0.0, 0.3333333333333333, 0.6666666666666666, 1.0)[number % 4]
        kind = "mono" if number % 3 else "poly"
        lines.append(f"images/cell{number:04d}.png  {probability}  {kind}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_elpv_is_split_by_a_hash_of_the_file_name(tmp_path: Path) -> None:
    whole = {copy.source.name: copy for copy in elpv.copies(fake_elpv(tmp_path / "a"))}
    part = {copy.source.name: copy.split for copy in elpv.copies(fake_elpv(tmp_path / "b", 20))}
    assert part == {name: whole[name].split for name in part}, "other images change nothing"
    assert set(part.values()) == {"train", "val", "test"}
    assert whole["cell0002.png"].place == "defective/cell0002_mono.png"
    assert whole["cell0009.png"].place == "functional/cell0009_poly.png"
    with pytest.raises(UserError, match=r"holds no labels\.csv"):
        elpv.copies(tmp_path)


DRAWINGS = {
    "animals/birds": ("eagle_francesco_{:02d}", 41),
    "animals/mammals": ("cat_{:02d}", 25),
    "animals/mammals/cats": ("lion_francesco_r_{:02d}", 16),
    "animals/bugs": ("bee_{:02d}", 39),
    "food/fruit": ("apple{:02d}_ganson", 45),
    "shapes/stars": ("star_{:02d}", 50),
}


def test_openclipart_keeps_authors_and_series_together(tmp_path: Path, cache: Path) -> None:
    for folder, (name, count) in DRAWINGS.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = tmp_path / folder / f"{name.format(number)}.png"
            Image.new("RGB", (6, 4), (number, 0, 0)).save(path)
    copies = openclipart.copies(tmp_path)
    assert {copy.place.split("/")[0] for copy in copies} == {
        "animals_birds", "animals_mammals", "food_fruit",
    }  # fmt: skip
    assert "animals_mammals/cats__lion_francesco_r_03.png" in {copy.place for copy in copies}
    groups = openclipart.group_of([copy.source.stem for copy in copies])
    parts: dict[str, set[str]] = {}
    for group, copy in zip(groups, copies, strict=True):
        parts.setdefault(group, set()).add(copy.split)
    assert all(len(splits) == 1 for splits in parts.values())
    assert openclipart.copies(tmp_path) == copies
    with pytest.raises(UserError, match=r"no drawings in .*dpkg -x openclipart-png"):
        openclipart.copies(tmp_path / "food")


def test_authors_and_series_in_file_names() -> None:
    stems = [
        "aquila_architetto_franc_01", "cigno_architetto_frances_02", "gufo_architetto_01",
        "duck_on_pond_ad_archite_01", "led_circle_1", "led_circle_2", "crow_01",
    ]  # fmt: skip
    groups = openclipart.group_of(stems)
    assert set(groups[:4]) == {"architetto"}
    assert groups[4] == groups[5] == "led_circle"
    assert groups[6] == "crow"
