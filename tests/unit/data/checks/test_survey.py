"""One range for a collection, from all of its images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit_ssl.data import open_dataset
from convit_ssl.data.checks import survey
from convit_ssl.data.reading.common_range import common_range
from convit_ssl.data.reading.pixels import decode_image
from convit_ssl.data.reading.value_range import Reading, values_range
from tests.unit.data.make_images import png16, tiff

SCENE = (300 + 10 * np.sin(np.arange(4096) / 15)).reshape(64, 64)


ODD = (np.nan, np.inf, -np.inf, -3.4e38, 9.96921e36, -9999, -999, 0, 32767, 99999, -(2**31))
TYPED = [
    *((dtype, odd) for dtype in (np.float32, np.float64) for odd in ODD),
    *((np.int16, odd) for odd in (-9999, -999, 32767)),
    *((np.int32, odd) for odd in (-9999, -999, 32767, 99999, -(2**31))),
]


@pytest.mark.parametrize(("dtype", "odd"), TYPED)
@pytest.mark.parametrize("where", ["pixel", "border"])
def test_what_is_not_signal_does_not_squeeze_the_rest(dtype: Any, odd: float, where: str) -> None:
    values = SCENE.astype(dtype)
    lost = np.zeros(values.shape, bool)
    lost[: 8 if where == "border" else 1, : None if where == "border" else 1] = True
    expected = float(values[~lost].min()), float(values[~lost].max())
    values[lost] = odd
    assert values_range(values) == expected


@pytest.mark.parametrize(
    "values",
    [
        np.repeat([-1000, -850, 40, 700], 64),
        np.repeat([0.0, 1000.0], 64),
        np.linspace(-9999, 9999, 500),
        np.concatenate([np.full(200, -2000), np.arange(-1024, 3000)]),
        np.concatenate([np.linspace(0, 1, 990), np.full(10, 1.9)]),
    ],
    ids=["plateaus", "mask", "ramp", "CT with padding", "small bright thing"],
)
def test_real_extremes_stay_within_the_range(values: np.ndarray) -> None:
    assert values_range(values) == (values.min(), values.max())


def test_one_odd_image_does_not_decide_for_the_others() -> None:
    usual = [(0.0, 3000.0 + n) for n in range(40)]
    assert common_range("unsigned", usual) == (0.0, 4095.0)
    mixed = [*usual, (0.0, 65000.0)]
    every = {common_range("unsigned", mixed[:n] + mixed[n + 1 :]) for n in range(len(mixed))}
    assert every == {(0.0, 4095.0)}
    for kind in ("signed", "float"):
        found = [(-1000.0 - n, 2000.0 + n) for n in range(40)]
        odd = [*found, (-30000.0, 30000.0)]
        assert common_range(kind, odd) == (-1039.0, 2039.0)
        lows, highs = zip(
            *(common_range(kind, odd[:n] + odd[n + 1 :]) for n in range(len(odd))), strict=True
        )
        assert {*lows} <= {-1039.0, -1038.0} and {*highs} <= {2039.0, 2038.0}


def write(folder: Path, images: list[np.ndarray]) -> None:
    for number, values in enumerate(images):
        path = folder / "train" / "ab"[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png16(values))


def noise(peak: int, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(peak)
    return [rng.integers(0, peak + 1, (24, 24), dtype=np.uint16) for _ in range(count)]


def survey_of(folder: Path, images: list[np.ndarray]) -> survey.Survey:
    write(folder, images)
    return open_dataset("folder", folder).survey()


def test_two_depths_in_one_collection_are_said_and_neither_is_black(tmp_path: Path) -> None:
    found = survey_of(tmp_path / "mixed", noise(4095, 20) + noise(65535, 20))
    assert found.reading == Reading(), "each image by itself"
    assert "20 would be nearly black" in found.warnings[0]
    assert "data.white_level=65535 gives all of them one range" in found.warnings[0]
    every = [image for bits in range(9, 17) for image in noise((1 << bits) - 1, 5)]
    found = survey_of(tmp_path / "every", every)
    assert found.reading == Reading() and found.warnings


def test_dim_images_of_one_camera_stay_dim(tmp_path: Path) -> None:
    found = survey_of(tmp_path / "one", noise(4095, 39) + noise(65535, 1))
    assert found.reading == Reading(white_level=4095)
    assert "1 go far beyond 0 to 4,095 and are scaled by themselves" in found.warnings[0]
    blank = [np.zeros((24, 24), np.uint16)] * 10 + noise(180, 10)
    found = survey_of(tmp_path / "blank", noise(65535, 20) + blank)
    assert found.reading == Reading(white_level=65535)
    steps = [image for bits in range(9, 17) for image in noise(int(0.7 * (1 << bits)), 5)]
    found = survey_of(tmp_path / "steps", steps)
    assert found.reading == Reading(white_level=65535)
    assert "data.white_level=65535 is the range in use" in found.warnings[0]


def test_types_that_mean_other_things_have_no_common_range(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for number in range(12):
        ramp = np.linspace(*((0, 1), (290, 310))[number % 2], 1024).reshape(32, 32)
        values = ramp.astype((np.float32, np.float64)[number % 2])
        (tmp_path / "train" / f"{number:02}.tif").write_bytes(tiff(values))
    found = open_dataset("folder", tmp_path).survey()
    assert found.reading == Reading() and "mix bit depths" in found.warnings[0]


def test_slices_of_a_scan_stay_comparable(tmp_path: Path) -> None:
    """Signed integers: one range for all slices, whatever each of them holds."""
    rng = np.random.default_rng(0)
    (tmp_path / "train").mkdir()
    for number in range(12):
        slice_ = rng.integers(-1000, (200, 1500)[number % 2], (32, 32)).astype(np.int16)
        slice_[0, 0] = 40
        (tmp_path / "train" / f"{number:02}.tif").write_bytes(tiff(slice_))
    dataset = open_dataset("folder", tmp_path)
    reading = dataset.survey().reading
    assert reading.signed_range is not None
    low, high = reading.signed_range
    assert low == -1000 and 1490 <= high < 1500
    opened = open_dataset("folder", tmp_path, reading=reading)
    assert {opened[number][0].getpixel((0, 0)) for number in range(12)} == {
        (round((40 - low) / (high - low) * 255),) * 3
    }


def test_six_colour_images_among_640_keep_their_colour(tmp_path: Path) -> None:
    for number in range(640):
        mode = "RGB" if 301 <= number < 307 else "L"
        path = tmp_path / "train" / f"{number:04}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new(mode, (4, 4)).save(path)
    assert not open_dataset("folder", tmp_path).is_grey()


def test_pixels_are_read_once_and_again_where_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(survey, "WORTH_KEEPING", 0.0)
    write(tmp_path, noise(4000, 4))
    read: list[str] = []
    original = survey.image_range

    def counted(path: str) -> Any:
        read.append(Path(path).name)
        return original(path)

    monkeypatch.setattr(survey, "image_range", counted)
    assert open_dataset("folder", tmp_path).survey().reading.white_level == 4095
    assert sorted(read) == ["000.png", "001.png", "002.png", "003.png"]
    assert open_dataset("folder", tmp_path).survey().reading.white_level == 4095
    assert len(read) == 4
    # Other pixels of the same size at the same time of change.
    path = tmp_path / "train" / "a" / "002.png"
    before = path.stat()
    values = np.asarray(decode_image(path.read_bytes())).astype(np.uint16)[..., 0] * 200
    data = png16(values)
    path.write_bytes(data[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    open_dataset("folder", tmp_path).survey()
    assert read[4:] == ["002.png"]
