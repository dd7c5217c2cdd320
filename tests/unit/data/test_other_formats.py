"""FITS, HEIF and arrays, against the libraries that wrote them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.data import open_dataset
from convit_ssl.data.channel_reading import read_planes
from convit_ssl.data.pixels import image_header
from convit_ssl.data.value_range import Reading

NATIVE = Reading(depth="native")
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(6, 9), (1, 6, 9), (4, 6, 9)])
@pytest.mark.parametrize("kind", ["float32", "int16", "uint16"])
def test_fits(tmp_path: Path, shape: tuple[int, ...], kind: str) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    values = (RNG.random(shape) * 1000).astype(kind)
    path = tmp_path / "sky.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(values)]).writeto(path)
    expected = fits.getdata(path, 1).reshape(-1, 6, 9)
    planes = read_planes(str(path), path.read_bytes(), NATIVE)
    assert np.array_equal(np.moveaxis(planes.values, -1, 0), expected[:, ::-1])
    header = image_header(str(path))
    assert (header.height, header.width) == (6, 9)
    image = open_dataset("folder", tmp_path, reading=NATIVE)[0][0]
    assert image.shape == (6, 9, len(expected))


def test_heif(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.kron(RNG.integers(0, 255, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    path = tmp_path / "photo.heic"
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=-1)
    expected = np.asarray(pillow_heif.open_heif(path).to_pillow().convert("RGB"))
    image, _, index = open_dataset("folder", tmp_path)[0]
    assert index == 0 and np.array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 5), (5, 6, 9)])
def test_arrays(tmp_path: Path, shape: tuple[int, ...]) -> None:
    for label, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        values = RNG.normal(size=shape).astype(np.float32) + label
        np.save(tmp_path / name / "1.npy", values)
        np.savez_compressed(tmp_path / name / "2.npz", values)
    images = open_dataset("folder", tmp_path, reading=NATIVE)
    assert list(images.files) == ["a/1.npy", "a/2.npz", "b/1.npy", "b/2.npz"]
    expected = values[..., None] if len(shape) == 2 else values
    expected = np.moveaxis(expected, 0, -1) if shape[0] == 5 else expected
    for place in (2, 3):
        assert np.array_equal(
            read_planes(images.path(place), _read(images.path(place)), NATIVE).values, expected
        )


def test_arrays_beside_pictures_are_not_images(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.zeros((4, 4)))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert list(open_dataset("folder", tmp_path).files) == ["a.png"]


@pytest.mark.parametrize("name", ["sky.fits", "photo.heic", "values.npy", "values.npz"])
def test_a_broken_file_is_one_message(tmp_path: Path, name: str) -> None:
    starts = {
        "sky.fits": b"SIMPLE  =",
        "photo.heic": b"\0\0\0\x18ftypheic",
        "values.npy": b"\x93NUMPY",
    }
    (tmp_path / name).write_bytes(starts.get(name, b"PK\3\4") + b"\0" * 500)
    images = open_dataset("folder", tmp_path, reading=NATIVE, max_corrupt=1.0, replace=False)
    assert images[0][2] == -1 and len(images.reader.fault_log.read()) == 1


def test_objects_in_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    images = open_dataset("folder", tmp_path, reading=NATIVE, max_corrupt=1.0, replace=False)
    assert images[0][2] == -1


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
