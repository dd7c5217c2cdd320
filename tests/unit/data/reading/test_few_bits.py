"""Samples of fewer than 8 bits, and TIFF that Pillow does not open: right, or refused by name.

The files are written by hand; the right value is worked out from the numbers in them.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit_ssl.data.reading.channel_reading import read_channels
from convit_ssl.data.reading.pixels import decode_array, decode_image
from convit_ssl.data.reading.value_range import Reading
from tests.unit.data.make_images import bare_tiff, packed, png16, tiff

Array = np.ndarray[Any, Any]
HEIGHT, WIDTH = 24, 40
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
VOID = 4  # a sample format: not said


def ramp(bits: int, channels: int = 1) -> Array:
    """(H, W, channels), from 0 to the largest number."""
    values = np.linspace(0, 2**bits - 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    return np.rint(np.stack([values, values[::-1], values[:, ::-1]][:channels], -1)).astype(int)


def nodata(value: int) -> dict[int, Any]:
    return {42113: ("B", list(f"{value}\0".encode()))}


def check(data: bytes, share: Array, tolerance: float = 1.0) -> None:
    """Compare with shares of white, (H, W, 1 or 3), in 8 bits."""
    found = np.asarray(decode_image(data)).astype(float)
    assert np.abs(found - share * 255.0).max() <= tolerance
    assert (decode_array(data) == found).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("entry", [0, 1, -1])
def test_transparent_value_of_a_grey_png(bits: int, entry: int) -> None:
    """Pillow compares the number in the file with values that it stretched to 8 bits."""
    values = ramp(bits)[..., 0]
    entry = values.max() + 1 + entry if entry < 0 else entry
    share = np.where(values == entry, 1.0, values / (2**bits - 1))
    assert 0 < (values == entry).sum() < values.size
    check(png16(values, transparent=entry, bits=bits), share[..., None])
    if bits > 1:  # the upper bits of an entry mean nothing in an image of fewer than 16 bits
        check(png16(values, transparent=entry + 512, bits=bits), share[..., None])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 32])
@pytest.mark.parametrize("big", [False, True])
def test_grey_tiff_of_any_number_of_bits(bits: int, order: str, big: bool) -> None:
    pytest.importorskip("imagecodecs")
    values = ramp(bits)
    share = values / (2**bits - 1)
    check(bare_tiff(values, bits, BLACK_IS_ZERO, order, big=big), share)
    check(bare_tiff(values, bits, WHITE_IS_ZERO, order, big=big), 1.0 - share)
    check(bare_tiff(values, bits, BLACK_IS_ZERO, order, big=big, tags={339: ("H", [VOID])}), share)
    tagged = bare_tiff(values, bits, BLACK_IS_ZERO, order, big=big, tags=nodata(0))
    check(tagged, share)
    if bits <= 8:
        native = read_channels("a.tif", tagged, Reading(depth="native"))
        assert np.abs(native - share).max() <= 1 / 255


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 12, 16])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_and_transparency_of_any_number_of_bits(
    bits: int, order: str, planar: bool, channels: int
) -> None:
    pytest.importorskip("imagecodecs")
    values, most = ramp(bits, channels), 2**bits - 1
    photometric = RGB if channels == 3 else BLACK_IS_ZERO
    check(bare_tiff(values, bits, photometric, order, planar), values / most)
    alpha = np.full((HEIGHT, WIDTH, 1), most)
    alpha[:6], alpha[6:12] = 0, most // 2
    opacity = alpha / most
    for kind, tied in ((0, 1.0), (1, opacity), (2, 1.0)):
        stored = np.rint(values * tied)
        written = np.concatenate([stored, alpha], axis=-1).astype(int)
        data = bare_tiff(written, bits, photometric, order, planar, tags={338: ("H", [kind])})
        share = stored / most + 1.0 - opacity if kind == 1 else values / most
        share = 1.0 + (values / most - 1.0) * opacity if kind == 2 else share
        check(data, share, tolerance=2.0 if kind == 1 else 1.0)


@pytest.mark.parametrize("compression", ["lerc", "jpeg2000", "png", "jpegxl", "zstd"])
@pytest.mark.parametrize("channels", [1, 3])
def test_compressions_that_pillow_lacks(compression: str, channels: int) -> None:
    pytest.importorskip("imagecodecs")
    values = ramp(8, channels).astype(np.uint8).squeeze()
    photometric = "rgb" if channels == 3 else "minisblack"
    data = tiff(values, photometric=photometric, compression=compression, tile=(16, 16))
    check(data, ramp(8, channels) / 255)


@pytest.mark.parametrize("bits", [1, 4])
def test_without_a_library_for_it_the_message_says_what_to_install(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bare_tiff(ramp(bits, 3), bits, RGB)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ValueError, match=r"convit_ssl\[tiff\]"):
        decode_image(data)


def test_17_to_31_bits_are_refused_by_name() -> None:
    """Libraries do not agree on the order of their bytes."""
    with pytest.raises(ValueError, match="24 bits"):
        decode_image(bare_tiff(ramp(24), 24, BLACK_IS_ZERO))


def test_rows_are_packed_as_the_format_says() -> None:
    assert packed(np.array([1, 0, 1]), 1, "<") == bytes([0b10100000])
    assert packed(np.array([15, 1, 2]), 4, "<") == bytes([0xF1, 0x20])
    assert packed(np.array([258]), 16, ">") == bytes([1, 2])


def test_exif_turns_images_of_16_bits_and_leaves_tiff_alone() -> None:
    """TIFF is always upright, and Pillow does not open every kind of it."""
    values, reading = ramp(16)[..., 0].astype(np.uint16), Reading(exif_rotation=True)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(values).save(file, "PNG", exif=exif)
    found = np.asarray(decode_image(file.getvalue(), reading=reading))[..., 0]
    assert np.abs(found - np.rot90(values, -1) / 257.0).max() <= 1.0
    half = tiff((values / 65535).astype(np.float16))
    found = np.asarray(decode_image(half, reading=reading))[..., 0]
    assert np.abs(found - values / 257.0).max() <= 1.0
