"""Every kind of image file becomes the right 8-bit RGB."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.data.reading.pixels import (
    ImageTooLargeError,
    decode_array,
    decode_image,
    image_header,
    read_raw,
)
from convit_ssl.data.reading.raw_image import ImageHeader, RawImage
from convit_ssl.data.reading.rendering import to_rgb
from convit_ssl.data.reading.value_range import Reading
from tests.unit.data.make_images import png16


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return small.resize((160, 120), Image.Resampling.BICUBIC)


def scaled(values: np.ndarray, white_level: int = 0) -> np.ndarray:
    return to_rgb(RawImage(values), Reading(white_level=white_level))[..., 0]


def gradient(low: int, high: int, dtype: type) -> np.ndarray:
    return np.linspace(low, high, 64).astype(dtype).reshape(8, 8)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_direct_jpeg_decoding_equals_pillow(
    photo: Image.Image, subsampling: int, progressive: bool
) -> None:
    data = encoded(photo, "JPEG", subsampling=subsampling, progressive=progressive)
    assert np.array_equal(decode_array(data), np.asarray(decode_image(data)))


def test_grey_and_cmyk_jpeg_equal_pillow(photo: Image.Image) -> None:
    for mode in ("L", "CMYK"):
        data = encoded(photo.convert(mode), "JPEG")
        array = decode_array(data)
        assert array.shape == (120, 160, 3)
        assert np.array_equal(array, np.asarray(decode_image(data)))
    error = np.abs(array.astype(int) - np.asarray(photo).astype(int)).mean()
    assert error < 12.0  # CMYK came back as the photo, not as its negative


def test_large_jpeg_is_decoded_smaller_but_not_too_small(photo: Image.Image) -> None:
    data = encoded(photo.resize((1600, 1200)), "JPEG", quality=95)
    array = decode_array(data, min_side=300)
    assert array.shape == (300, 400, 3)
    expected = np.asarray(photo.resize((400, 300), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(array.astype(int) - expected).mean() < 3.0


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_order_and_range(kind: str) -> None:
    values = gradient(0, 65535, np.uint16)
    found = np.asarray(decode_image(encoded(Image.fromarray(values), kind)))
    assert found.min() == 0
    assert found.max() == 255
    assert np.abs(found[..., 0].astype(float) - values / 257.0).max() <= 0.5


def test_twelve_bits_in_sixteen_are_not_almost_black() -> None:
    values = gradient(0, 4095, np.uint16)
    found = np.asarray(decode_image(encoded(Image.fromarray(values), "TIFF")))
    assert found.max() == 255


def test_a_hot_pixel_does_not_darken_an_image() -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    expected = scaled(values)
    values[0, 0] = 65535
    found = scaled(values)
    assert found[0, 0] == 255
    assert (found[1:] == expected[1:]).all()


@pytest.mark.parametrize(("peak", "full"), [(4200, 8191), (16000, 16383), (40000, 65535)])
def test_grey_of_other_depths_fills_half_of_the_range_at_least(peak: int, full: int) -> None:
    values = gradient(0, peak, np.uint16)
    found = scaled(values)
    assert np.abs(found - values * (255.0 / full)).max() <= 0.5
    assert found.max() >= 127


@pytest.mark.parametrize("peak", [200, 900, 4095])
def test_a_white_level_keeps_the_images_of_a_camera_comparable(peak: int) -> None:
    values = gradient(0, peak, np.uint16)
    data, reading = encoded(Image.fromarray(values), "TIFF"), Reading(white_level=4095)
    found = decode_image(data, reading=reading)
    assert np.abs(np.asarray(found)[..., 0] - values * (255.0 / 4095)).max() <= 0.5
    as_array = decode_array(data, reading=reading)
    assert (as_array == np.asarray(found)).all()


def test_an_image_of_more_bits_than_its_collection_is_not_all_white() -> None:
    values = gradient(0, 65535, np.uint16)
    assert (scaled(values, white_level=4095) == scaled(values)).all()


def test_a_white_level_leaves_8_bits_and_colour_alone() -> None:
    values = gradient(0, 255, np.uint8)
    for image in (Image.fromarray(values), Image.fromarray(values).convert("RGB")):
        data = encoded(image, "PNG")
        assert (decode_array(data, reading=Reading(white_level=4095)) == decode_array(data)).all()


def test_colour_of_16_bits() -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    found = np.asarray(decode_image(png16(pixels)))
    assert np.abs(found - pixels / 257.0).max() <= 0.5
    assert np.asarray(decode_image(png16(np.zeros_like(pixels)))).max() == 0


def test_a_dark_tile_of_16_bit_colour_is_read_and_stays_dark() -> None:
    """Its collection tells that it is dark: it is neither corrupt nor of fewer bits."""
    pixels = np.random.default_rng(0).integers(0, 4096, (20, 30, 3), dtype=np.uint16)
    found = np.asarray(decode_image(png16(pixels), reading=Reading(white_level=65535)))
    assert np.abs(found - pixels / 257.0).max() <= 0.5


def test_colour_of_12_bits_is_not_almost_black() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (20, 30, 3), dtype=np.uint16)
    found = np.asarray(decode_image(png16(pixels)))
    assert np.abs(found - pixels * (255.0 / 4095)).max() <= 0.5


def test_floating_point() -> None:
    assert scaled(np.array([[0.0, 0.5, 1.0]])).tolist() == [[0, 128, 255]]
    assert scaled(np.array([[-1.0, 0.0, np.nan, 1.0]])).tolist() == [[0, 128, 0, 255]]
    assert scaled(np.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    found = np.asarray(decode_image(encoded(Image.fromarray(values), "TIFF")))
    assert found[0, 0, 0] == 0
    assert found[-1, -1, 0] == 255


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_lies_over_white(kind: str) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, :3] = (200, 10, 10)
    pixels[:2, :, 3] = 255
    options = {"lossless": True} if kind == "WEBP" else {}
    found = np.asarray(decode_image(encoded(Image.fromarray(pixels), kind, **options)))
    assert found[0, 0].tolist() == [200, 10, 10]
    assert found[3, 3].tolist() == [255, 255, 255]


def test_palette_with_transparency_and_one_bit() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 0, 255, 0] + [0] * 762)
    palette.putpixel((0, 0), 0)
    found = np.asarray(decode_image(encoded(palette, "PNG", transparency=0)))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [0, 255, 0]
    bits = Image.new("1", (4, 4), 1)
    assert np.asarray(decode_image(encoded(bits, "PNG"))).min() == 255


@pytest.mark.parametrize("most", [255, 1023, 65535])
def test_pgm_has_the_kind_of_number_of_its_header(tmp_path: Path, most: int) -> None:
    """One kind, or the white level of its collection would not hold for it."""
    values = (np.arange(48).reshape(6, 8) * (most // 64)).astype(">u2" if most > 255 else "u1")
    data = f"P5 8 6 {most}\n".encode() + values.tobytes()
    (tmp_path / "a.pgm").write_bytes(data)
    raw = read_raw(data)
    kind = "8 bits" if raw is None else raw.kind
    assert image_header(str(tmp_path / "a.pgm")).kind == kind
    dark = np.asarray(decode_image(data, reading=Reading(white_level=65535)))[..., 0]
    assert np.abs(dark - values * (255 / most)).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    found = np.asarray(decode_image(data))
    assert found.shape == (8, 8, 3)
    assert found[0, 0].tolist() == [255, 0, 0]


def test_a_decompression_bomb_is_refused_before_it_is_decoded(photo: Image.Image) -> None:
    for kind in ("PNG", "JPEG"):
        data = encoded(photo, kind)
        with pytest.raises(ImageTooLargeError, match="160 x 120"):
            decode_array(data, max_pixels=19_199)
        assert decode_array(data, max_pixels=19_200).shape == (120, 160, 3)


def test_arrays_can_be_written_to(photo: Image.Image) -> None:
    for kind in ("PNG", "JPEG"):
        assert decode_array(encoded(photo, kind)).flags.writeable


def test_header(tmp_path: Path, photo: Image.Image) -> None:
    photo.convert("L").save(tmp_path / "a.png")
    assert image_header(str(tmp_path / "a.png")) == ImageHeader(120, 160, grey=True, mode="L")
