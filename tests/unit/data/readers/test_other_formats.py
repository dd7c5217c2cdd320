"""FITS, HEIF and arrays, against the libraries that wrote them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit_ssl.analysis.images import open_image
from convit_ssl.data import open_dataset
from convit_ssl.data.notes import note_once
from convit_ssl.data.reading.channel_reading import read_planes
from convit_ssl.data.reading.deep_photos import deep_jxl
from convit_ssl.data.reading.pixels import decode_image, image_header
from convit_ssl.data.reading.value_range import Reading

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


def deep_image() -> Any:
    y, x = np.mgrid[:40, :60]
    return np.stack([x * 900, y * 1500, (x + y) * 600], axis=-1).astype(np.uint16)


def test_colours_of_more_than_8_bits_in_native_depth(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs")
    values = deep_image()
    written = {
        "jp2": codecs.jpeg2k_encode(values, reversible=True, level=0),
        "avif": codecs.avif_encode(values >> 6, bitspersample=10, level=100),
    }
    if importlib.util.find_spec("pillow_jxl") is not None:
        written["jxl"] = codecs.jpegxl_encode(values, lossless=True)
    for name, data in written.items():
        path = tmp_path / f"a.{name}"
        path.write_bytes(data)
        deep = read_planes(str(path), data, Reading(depth="native"))
        assert deep.values.dtype == np.uint16 and deep.names == ("R", "G", "B"), name
        expected = values >> 6 if name == "avif" else values
        # AVIF's colours are rounded on the way to YCbCr and back.
        assert np.abs(deep.values.astype(int) - expected).max() <= (4 if name == "avif" else 0)
        shallow = np.asarray(open_image(path, Reading()).convert("RGB")).astype(int)
        assert np.abs(shallow - (values >> 8)).max() <= 2, name


@pytest.mark.parametrize("side", [40, 37, 600])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("lossless", [True, False])
def test_the_depth_of_a_jpeg_xl_by_its_header(side: int, bits: int, lossless: bool) -> None:
    codecs = pytest.importorskip("imagecodecs")
    kind = np.uint8 if bits == 8 else np.uint16
    values = np.full((side, side + 11, 3), (1 << bits) - 1, kind)
    data = codecs.jpegxl_encode(values, lossless=lossless, bitspersample=bits, effort=1)
    planes = deep_jxl(data)
    assert (planes is None) == (bits == 8)
    for container in (False, True):
        again = codecs.jpegxl_encode(
            values, lossless=lossless, bitspersample=bits, effort=1, usecontainer=container
        )
        assert (deep_jxl(again) is None) == (bits == 8)


def test_heic_of_10_bits_in_native_depth(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    made = heif.from_bytes(mode="RGB;16", size=(60, 40), data=deep_image().tobytes())
    made.save(path, quality=-1)
    expected = np.asarray(heif.open_heif(path, convert_hdr_to_8bit=False))
    assert expected.dtype == np.uint16 and len(np.unique(expected)) > 256
    deep = read_planes(str(path), path.read_bytes(), Reading(depth="native"))
    assert np.array_equal(deep.values, expected)
    assert read_planes(str(path), path.read_bytes(), Reading()).values.dtype == np.uint8


def test_without_imagecodecs_one_warning_says_that_depth_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    codecs = pytest.importorskip("imagecodecs")
    data = codecs.avif_encode(deep_image() >> 6, bitspersample=10, level=100)
    note_once.cache_clear()
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for _ in range(2):
        planes = read_planes(str(tmp_path / "a.avif"), data, Reading(depth="native"))
    assert planes.values.dtype == np.uint8
    said = [record.message for record in caplog.records if "read as 8 bits" in record.message]
    assert len(said) == 1 and "convit_ssl[tiff]" in said[0]


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 16])
@pytest.mark.parametrize(
    ("container", "channels"),
    [("jp2", 1), ("jp2", 2), ("jp2", 3), ("jp2", 4), ("j2k", 1), ("j2k", 3)],
)
def test_white_of_a_jpeg_2000_stays_white(
    tmp_path: Path, bits: int, container: str, channels: int
) -> None:
    """Pillow rounds the largest number of more than 8 bits up, to 256, and stores it as 0."""
    codecs = pytest.importorskip("imagecodecs")
    most = 2**bits - 1
    ramp = np.linspace(0, most, 40 * 60).reshape(40, 60).round()
    values = np.stack([ramp, ramp[::-1], ramp[:, ::-1]][: 1 if channels < 3 else 3], axis=-1)
    share = values / most
    if channels in (2, 4):
        alpha = np.full((40, 60, 1), most)
        alpha[:9] = 0
        values, share = np.concatenate([values, alpha], -1), 1.0 + (share - 1.0) * (alpha > 0)
    path = tmp_path / f"a.{container}"
    path.write_bytes(
        codecs.jpeg2k_encode(
            values.squeeze().astype(np.uint8 if bits == 8 else np.uint16), level=0,
            reversible=True, bitspersample=bits, codecformat=container,
        )
    )  # fmt: skip
    found = np.asarray(decode_image(path.read_bytes())).astype(float)
    assert np.abs(found - share * 255.0).max() <= 1.0
    header = image_header(str(path))
    assert (header.height, header.width) == (40, 60) and header.grey == (channels < 3)
    assert header.kind == ("8 bits" if bits == 8 else "unsigned")


def test_without_imagecodecs_colours_of_jpeg_2000_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codecs = pytest.importorskip("imagecodecs")
    data = codecs.jpeg2k_encode(deep_image(), reversible=True, level=0)
    grey = codecs.jpeg2k_encode(deep_image()[..., 0], reversible=True, level=0)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ValueError, match=r"convit_ssl\[tiff\]"):
        decode_image(data)
    assert np.asarray(decode_image(grey)).shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("avif", 8), ("avif", 10), ("avif", 12), ("heic", 10), ("jxl", 8), ("jxl", 12), ("jxl", 16)],
)
def test_white_stays_white(tmp_path: Path, kind: str, bits: int) -> None:
    codecs = pytest.importorskip("imagecodecs")
    values = np.full((40, 60, 3), 2**bits - 1, np.uint8 if bits == 8 else np.uint16)
    values[:20] = 0
    path = tmp_path / f"a.{kind}"
    if kind == "heic":
        heif = pytest.importorskip("pillow_heif")
        full = np.where(values > 0, 65535, 0).astype(np.uint16)
        heif.from_bytes(mode="RGB;16", size=(60, 40), data=full.tobytes()).save(path, quality=-1)
    elif kind == "avif":
        path.write_bytes(codecs.avif_encode(values, bitspersample=bits, level=100))
    else:
        pytest.importorskip("pillow_jxl")
        path.write_bytes(codecs.jpegxl_encode(values, lossless=True, bitspersample=bits))
    found = np.asarray(open_image(path, Reading()).convert("RGB")).astype(int)
    assert np.abs(found - np.where(values > 0, 255, 0)).max() <= 2
