"""What people see of slides, stacks and n channels: chosen channels, windows and scale bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.data.checks.quality import inspect
from convit_ssl.data.reading.scale_bar import _font, bar_of
from convit_ssl.data.reading.viewing import check_shown, view_image
from convit_ssl.errors import UserError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("width", "length", "text"),
    [(0.1, 0.02, "20 µm"), (0.012, 0.002, "2 µm"), (400.0, 100.0, "100 mm"), (5e6, 1e6, "1 km")],
)
def test_a_round_length(width: float, length: float, text: str) -> None:
    assert bar_of(width) == (pytest.approx(length), text)


def test_the_font_of_scale_bars_has_their_letters() -> None:
    font = _font(16)
    unknown = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != unknown for letter in "µnkm12345")


def test_small_pictures_are_enlarged_for_their_scale_bar(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = str(tmp_path / "a.ome.tif")
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, np.zeros((20, 30), np.uint16), metadata=metadata)
    assert view_image(path, side=112, scale_bar=True).size == (90, 60)
    assert view_image(path, side=112).size == (30, 20)


def test_chosen_channels_and_a_scale_bar(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(0, 4000, (5, 100, 120)).astype(np.uint16)
    values[3, :50] = 0
    values[3, 50:] = 4000
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    path = str(tmp_path / "a.ome.tif")
    tifffile.imwrite(path, values, metadata=metadata, photometric="minisblack")
    grey = np.asarray(view_image(path, show=(3,)))
    assert (grey[:50] == 0).all() and (grey[50:] == 255).all()
    with pytest.raises(UserError, match="no channel 6; the images have 5 channels"):
        view_image(path, show=(5,))
    with pytest.raises(UserError, match="no channel 6"):
        check_shown([str(tmp_path / "missing.png"), path], (5,))
    check_shown([path], (4,))
    bar = np.asarray(view_image(path, show=(3,), scale_bar=True))
    changed = np.argwhere((bar != grey).any(axis=-1))
    assert len(changed) and changed[:, 0].min() > 50 and changed[:, 1].max() < 60
    assert np.asarray(view_image(path)).shape == (100, 120, 3)


def test_dicom_is_shown_in_its_own_window() -> None:
    pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    from convit_ssl.data.reading.channel_reading import read_planes
    from convit_ssl.data.reading.rendering import to_rgb
    from convit_ssl.data.reading.value_range import Reading

    path = str(get_testdata_file("examples_overlay.dcm", download=False))
    planes = read_planes(path, Path(path).read_bytes(), Reading())
    assert planes.window is not None
    expected = to_rgb(planes.raw(), Reading(window=planes.window))
    assert np.array_equal(np.asarray(view_image(path)), expected)


def test_check_reads_zarr_and_images_of_several_files(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    values = RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8)
    for name in ("a.zarr", "b.zarr"):
        made = zarr.open(
            str(tmp_path / name), mode="w", shape=values.shape, dtype="u1", chunks=(20, 30, 3)
        )
        made[...] = values
    facts = [inspect(str(tmp_path / name)) for name in ("a.zarr", "b.zarr")]
    assert not facts[0].problem and facts[0].size == (20, 30)
    assert facts[0].digest == facts[1].digest
    for name in ("1", "2"):
        Image.fromarray(values[..., 0]).save(tmp_path / f"{name}.png")
    joined = inspect(f"{tmp_path}/1.png#+dapi#+2.png#+gfp")
    assert not joined.problem and joined.size == (20, 30)


def test_an_overview_of_a_slide(tmp_path: Path) -> None:
    pytest.importorskip("tiffslide")
    from tests.unit.data.readers.test_films_and_slides import slide

    full = slide(tmp_path / "a.svs")
    small = np.asarray(view_image(str(tmp_path / "a.svs"), side=128))
    assert max(small.shape) == 128
    assert np.abs(small.mean() - full.mean()) < 3
    assert np.asarray(view_image(str(tmp_path / "a.svs"))).shape == full.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_16_bit_photographs_in_native_depth(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    from convit_ssl.data import open_dataset
    from convit_ssl.data.reading.value_range import Reading

    values = RNG.integers(0, 65535, (6, 9)).astype(np.uint16)
    small = Image.fromarray((values >> 8).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    small.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(small))
    reading = Reading(depth="native", exif_rotation=True, channel_ranges=((0.0, 65535.0),))
    found = np.rint(open_dataset("folder", tmp_path, reading=reading)[0][0][..., 0] * 65535)
    assert np.array_equal(found.astype(np.uint16) >> 8, expected)


def test_explore_shows_images_in_the_window_that_the_weights_were_trained_with(
    tmp_path: Path,
) -> None:
    from argparse import Namespace

    from convit_ssl.analysis.explore import Images
    from convit_ssl.cli.explore_command import _loader

    values = np.full((16, 16), -1000, np.int16)
    values[:, 8:] = 400
    values[:2] = 3000
    np.save(tmp_path / "a.npy", values)
    images = Images([str(tmp_path / "a.npy")], ["all"], [""], [""])
    args = Namespace(show=None, colour_map=None, thumbnail=16, scale_bar=False)
    wide = np.asarray(_loader(images, args, set(), None)(0))
    narrow = np.asarray(_loader(images, args, set(), (-1000.0, 400.0))(0))
    assert wide[8, 12, 0] < 128 and wide[0, 0, 0] == 255
    assert narrow[8, 0, 0] == 0 and narrow[8, 12, 0] == 255
