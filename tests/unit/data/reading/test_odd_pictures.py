"""Valid pictures that common libraries get wrong, or do not read: right, or refused by name."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit_ssl.data import open_dataset
from convit_ssl.data.listing.scenes import open_scene
from convit_ssl.data.reading.channel_reading import read_planes
from convit_ssl.data.reading.pixels import decode_array, decode_image, image_header, image_range
from convit_ssl.data.reading.raw_image import ImageTooLargeError
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.data.reading.viewing import view_image
from tests.unit.data.make_images import bare_tiff, png16, tiff

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
BLACK_IS_ZERO, RGB, YCBCR = 1, 2, 6
REDUCED, PAGE_OF_MANY, MASK = 1, 2, 4  # bits of TIFF's NewSubfileType


def picture(height: int = 24, width: int = 36) -> Array:
    """(H, W, 3) of 8 bits, from black to white in each channel."""
    y, x = np.mgrid[:height, :width]
    red = np.rint(x * (255 / (width - 1)))
    green = np.rint(y * (255 / (height - 1)))
    return np.stack([red, green, 255 - red], -1).astype(np.uint8)


def pages(*written: tuple[Array, int], **options: Any) -> bytes:
    """A TIFF of pages, each with its NewSubfileType."""
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as out:
        for values, kind in written:
            photometric = "mask" if kind & MASK else "rgb" if values.ndim == 3 else "minisblack"
            out.write(values, photometric=photometric, subfiletype=kind, metadata=None)
    return file.getvalue()


def check(data: bytes, expected: Array, folder: Path, tolerance: int = 0) -> None:
    """By all ways to read a file, its header included."""
    found = np.asarray(decode_image(data)).astype(int)
    expected = expected if expected.ndim == 3 else expected[..., None]
    assert found.shape[:2] == expected.shape[:2]
    assert np.abs(found - expected).max() <= tolerance
    assert (decode_array(data) == found).all()
    path = folder / "image"
    path.write_bytes(data)
    header = image_header(str(path))
    assert (header.height, header.width) == found.shape[:2]
    assert header.grey == bool((expected == expected[..., :1]).all())


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("first", [REDUCED, REDUCED | PAGE_OF_MANY, MASK, MASK | REDUCED])
def test_a_thumbnail_or_mask_before_the_image_is_not_the_image(
    tmp_path: Path, first: int, deep: bool, options: dict[str, Any]
) -> None:
    whole = picture()
    small = whole[::4, ::4].copy()
    before = small[..., 0] > 99 if first & MASK else small
    written = whole.astype(np.uint16) * 257 if deep else whole
    data = pages((before, first), (before, first), (written, 0), **options)
    check(data, whole, tmp_path)
    path = str(tmp_path / "image")
    assert np.array_equal(read_planes(path, data, Reading(depth="native")).values, written)
    assert image_range(path) == ((0, 65535) if deep else None)
    assert view_image(path).size == whole.shape[1::-1]
    scene = open_scene(path, Reading())
    assert (scene.height, scene.width) == whole.shape[:2]
    corner = scene.region(20, 12, 8, 8)
    assert np.array_equal(corner.values, written[12:20, 20:28])


def test_where_all_pages_are_reduced_the_first_is_shown_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = picture()
    check(pages((whole, REDUCED), (whole[::2, ::2].copy(), REDUCED)), whole, tmp_path)
    assert "reduced copies" in caplog.text


def test_the_image_in_a_sub_directory_of_its_thumbnail(tmp_path: Path) -> None:
    """As cameras and some microscopes write it."""
    tifffile = pytest.importorskip("tifffile")
    whole, file = picture(), io.BytesIO()
    with tifffile.TiffWriter(file) as out:
        small = whole[::4, ::4].copy()
        out.write(small, photometric="rgb", subfiletype=REDUCED, subifds=1, metadata=None)
        out.write(whole, photometric="rgb", subfiletype=0, metadata=None)
    check(file.getvalue(), whole, tmp_path)


def test_pages_that_lead_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    whole = picture()
    data = bytearray(pages((whole, REDUCED)))
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    end = first + 2 + 12 * entries
    data[end : end + 4] = data[4:8]
    check(bytes(data), whole, tmp_path)


def test_a_mask_that_is_a_tiff_with_a_thumbnail(tmp_path: Path) -> None:
    from convit_ssl.data.listing.masks import read_mask

    classes = RNG.integers(0, 7, (24, 36)).astype(np.uint8)
    path = tmp_path / "mask.tif"
    path.write_bytes(pages((classes[::4, ::4].copy(), REDUCED), (classes, 0)))
    assert np.array_equal(read_mask(str(path)), classes)


def ycbcr(across: int, down: int, shape: tuple[int, int]) -> tuple[bytes, Array]:
    """An uncompressed TIFF of YCbCr with fewer samples of colour, and its RGB (TIFF 6.0, 21)."""
    height, width = shape
    luma = RNG.integers(40, 210, shape)
    small = (-(-height // down), -(-width // across))
    blue, red = RNG.integers(100, 150, (2, *small))
    padded = np.pad(luma, ((0, -height % down), (0, -width % across)))
    units = padded.reshape(small[0], down, small[1], across).swapaxes(1, 2).reshape(*small, -1)
    stored = np.concatenate([units, blue[..., None], red[..., None]], -1).reshape(1, -1, 1)
    samples = {277: ("H", [3]), 258: ("H", [8, 8, 8]), 530: ("H", [across, down])}
    size = {256: ("I", [width]), 257: ("I", [height]), 278: ("I", [height])}
    data = bare_tiff(stored, 8, YCBCR, tags={**samples, **size})
    cb, cr = (
        each.repeat(down, 0).repeat(across, 1)[:height, :width] - 128.0 for each in (blue, red)
    )
    rgb = np.stack([luma + 1.402 * cr, luma - 0.344 * cb - 0.714 * cr, luma + 1.772 * cb], -1)
    return data, np.rint(rgb.clip(0, 255))


@pytest.mark.parametrize("sampling", [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (1, 2)])
@pytest.mark.parametrize("shape", [(16, 24), (7, 13)])
def test_uncompressed_ycbcr_of_any_sampling(
    tmp_path: Path, sampling: tuple[int, int], shape: tuple[int, int]
) -> None:
    """Pillow takes it for whole pixels, in one row after another."""
    data, expected = ycbcr(*sampling, shape)
    check(data, expected, tmp_path, tolerance=2)


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_that_does_not_say_what_black_is(tmp_path: Path, bits: int, channels: int) -> None:
    """As libtiff has it: 0 is black, three channels are RGB. Pillow takes 0 for white."""
    most = 2**bits - 1
    levels = np.rint(picture()[..., :channels] / 255 * most).astype(int)
    data = bare_tiff(levels, bits, RGB if channels == 3 else BLACK_IS_ZERO)
    tag = (262).to_bytes(2, "little") + (3).to_bytes(2, "little")
    assert data.count(tag) == 1
    data = data.replace(tag, (300).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    check(data, np.rint(levels / most * 255), tmp_path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("deep", [False, True])
def test_tiles_that_are_left_out_are_black(
    tmp_path: Path, deep: bool, channels: int, compression: str | None
) -> None:
    """As GDAL writes them with SPARSE_OK: place and length are 0. Pillow reads the header there."""
    pytest.importorskip("imagecodecs")
    whole = picture(32, 48)[..., :channels].squeeze()
    whole[:16, :16] = 255
    written = whole.astype(np.uint16) * 257 if deep else whole
    photometric = "rgb" if channels == 3 else "minisblack"
    data = bytearray(tiff(written, photometric=photometric, tile=(16, 16), compression=compression))
    import tifffile

    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = file.pages[0].tags[name]
            size = tag.valuebytecount // tag.count
            at = tag.valueoffset + 3 * size  # the first of the second row of tiles
            data[at : at + size] = bytes(size)
    whole[16:, :16] = 0
    check(bytes(data), whole, tmp_path)
    by_gdal = {273: ("I", [0]), 34735: ("H", [1, 1, 0, 0])}
    with pytest.raises(ValueError, match="palette with parts left out"):
        decode_image(bare_tiff(np.zeros((2, 2, 1), int), 8, 3, tags=by_gdal))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_header_of_a_tiff_that_is_turned(tmp_path: Path, orientation: int, deep: bool) -> None:
    whole = picture()
    written = whole.astype(np.uint16) * 257 if deep else whole
    data = tiff(written, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    turned = {5: whole.swapaxes(0, 1), 7: whole.swapaxes(0, 1)[::-1, ::-1]}
    turned |= {6: np.rot90(whole, -1), 8: np.rot90(whole, 1)}
    check(data, turned[orientation], tmp_path)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_of_more_than_8_bits(tmp_path: Path, bits: int, channels: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    values = picture()[..., :channels].squeeze().astype(np.uint16) * ((2**bits - 1) // 255)
    values[-1, -1] = values[0, -1] = 2**bits - 1
    data = imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=bits)
    check(data, np.rint(values / (2**bits - 1) * 255), tmp_path, tolerance=1)
    found = read_planes("a.jpg", data, Reading(depth="native")).values
    assert np.array_equal(found.squeeze(), values)
    with pytest.raises(ImageTooLargeError):
        decode_image(data, max_pixels=100)


@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_turns_a_deep_jpeg(orientation: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    whole = picture()[..., 0]
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + bytes([0, 1, 1, 18, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0])
    block = b"\xff\xe1" + (len(exif) + 6).to_bytes(2) + exif + bytes(4)
    deep = imagecodecs.jpeg8_encode(whole.astype(np.uint16) * 257, lossless=True, bitspersample=16)
    data = deep[:2] + block + deep[2:]
    turned = np.rot90(whole, -1) if orientation == 6 else whole
    found = np.asarray(decode_image(data, reading=Reading(exif_rotation=True)))
    assert np.array_equal(found[..., 0], turned)
    native = read_planes("a.jpg", data, Reading(depth="native", exif_rotation=True)).values
    assert np.array_equal(native[..., 0], turned.astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(decode_image(data))[..., 0], whole)


def test_without_imagecodecs_a_deep_jpeg_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    data = imagecodecs.jpeg8_encode(picture()[..., 0].astype(np.uint16), bitspersample=12)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ValueError, match=r"JPEG of more than 8 bits.*convit_ssl\[tiff\]"):
        decode_image(data)


@pytest.mark.parametrize("most", [1, 15, 255, 1023, 65535])
@pytest.mark.parametrize("kind", ["GRAYSCALE", "GRAYSCALE_ALPHA", "RGB", "RGB_ALPHA"])
def test_pam(tmp_path: Path, kind: str, most: int) -> None:
    colour = picture()[..., :1] if kind.startswith("GRAY") else picture()
    values = np.rint(colour / 255 * most)
    share, stored = values / most, values
    if kind.endswith("ALPHA"):
        opacity = np.rint(picture()[..., 1:2] / 255 * most)
        stored = np.concatenate([values, opacity], -1)
        share = 1 + (share - 1) * opacity / most
    height, width, depth = stored.shape
    header = f"P7\nWIDTH {width}\n# by hand\nHEIGHT {height}\nDEPTH {depth}\nMAXVAL {most}\n"
    data = f"{header}TUPLTYPE {kind}\nENDHDR\n".encode()
    data += stored.astype(">u2" if most > 255 else "u1").tobytes()
    check(data, np.rint(share * 255).squeeze(), tmp_path, tolerance=1)
    with pytest.raises(ValueError, match="cut off"):
        decode_image(data[:-1])
    (tmp_path / "image").rename(tmp_path / "image.pam")
    assert list(open_dataset("folder", tmp_path).files) == ["image.pam"]


@pytest.mark.parametrize("scale", ["-1.0", "1.0", "-2.5"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pfm_in_grey_and_in_colour(tmp_path: Path, channels: int, scale: str) -> None:
    """Rows run from the bottom to the top, and the sign of the scale is the order of bytes."""
    values = (picture()[..., :channels] / 255).astype("<f4" if scale[0] == "-" else ">f4")
    height, width, _ = values.shape
    data = f"P{'F' if channels == 3 else 'f'}\n{width} {height}\n{scale}\n".encode()
    data += values[::-1].tobytes()
    check(data, picture()[..., :channels].squeeze(), tmp_path)


def test_interlaced_grey_with_alpha_of_16_bits_is_as_without(tmp_path: Path) -> None:
    grey = picture()[..., 0].astype(np.uint16) * 257
    alpha = picture()[..., 1].astype(np.uint16) * 257
    share = 1 + (grey / 65535 - 1) * (alpha / 65535)
    check(png16(grey, alpha), np.rint(share * 255), tmp_path, tolerance=1)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize(
    "compression",
    ["webp", "zstd", "lzma", "jpegxl", "jpeg2000", "jpegxr", "png", "lerc", "packbits", "lzw"],
)
def test_a_tiff_of_any_lossless_compression(
    tmp_path: Path, compression: str, tile: tuple[int, int] | None
) -> None:
    """What Pillow's libtiff does not know is decoded by imagecodecs."""
    pytest.importorskip("imagecodecs")
    kept = {"webp": {"lossless": True}, "jpegxl": {"lossless": True},
            "jpeg2000": {"reversible": True}}.get(compression)  # fmt: skip
    options: dict[str, Any] = {"compression": compression, "compressionargs": kept, "tile": tile}
    colours = picture()
    check(tiff(colours, photometric="rgb", **options), colours, tmp_path)
    alpha = np.where(np.arange(36) < 18, 255, 51).astype(np.uint8) * np.ones((24, 1), np.uint8)
    over = np.rint(255 + (colours.astype(float) - 255) * (alpha[..., None] / 255.0))
    both = np.dstack([colours, alpha])
    check(
        tiff(both, photometric="rgb", extrasamples=["unassalpha"], **options),
        over.astype(np.uint8), tmp_path,
    )  # fmt: skip
    if compression != "webp":  # which has colours only
        grey = colours[..., 0]
        check(tiff(grey, photometric="miniswhite", **options), 255 - grey, tmp_path)


def without_tag(data: bytes, name: str) -> bytes:
    """The same TIFF (little endian, below 4 GiB) without one tag of its first page."""
    at = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[at : at + 2], "little")
    entries = [data[at + 2 + 12 * n : at + 14 + 12 * n] for n in range(count)]
    number = pytest.importorskip("tifffile").TIFF.TAGS[name].to_bytes(2, "little")
    kept = [entry for entry in entries if entry[:2] != number]
    assert len(kept) == count - 1
    end = at + 2 + 12 * count
    made = len(kept).to_bytes(2, "little") + b"".join(kept) + data[end : end + 4]
    return data[:at] + made + bytes(12) + data[end + 4 :]


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "lzw", "zstd"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_fourth_channel_that_is_not_explained_is_alpha(
    tmp_path: Path, deep: bool, compression: str | None, tile: tuple[int, int] | None
) -> None:
    """As OpenCV writes RGBA, and as libtiff and Pillow read it, at 8 bits and at 16."""
    pytest.importorskip("imagecodecs")
    colours = picture()
    alpha = np.where(np.arange(36) < 18, 255, 51).astype(np.uint8) * np.ones((24, 1), np.uint8)
    both = np.dstack([colours, alpha])
    written = both.astype(np.uint16) * 257 if deep else both
    options: dict[str, Any] = {"compression": compression, "tile": tile, "photometric": "rgb"}
    over = np.rint(255 + (colours.astype(float) - 255) * (alpha[..., None] / 255.0))
    data = without_tag(tiff(written, extrasamples=["unassalpha"], **options), "ExtraSamples")
    check(data, over.astype(np.uint8), tmp_path)
    planes = read_planes("a.tif", data, Reading(depth="native"))
    assert planes.names == ("R", "G", "B", "A")
    said = tiff(written, extrasamples=["unspecified"], **options)
    if deep:  # of 8 bits Pillow decides
        check(said, colours, tmp_path)


@pytest.mark.parametrize("compression", [1, 5, 7, 50000])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_without_any_pixels_is_not_black(channels: int, bits: int, compression: int) -> None:
    """A writer that failed leaves the header; of GDAL's files all tiles may be left out."""
    tags: dict[int, Any] = {273: ("I", [0]), 279: ("I", [0]), 259: ("H", [compression])}
    values = np.zeros((2, 2, channels), int)
    photometric = RGB if channels == 3 else BLACK_IS_ZERO
    data = bare_tiff(values, bits, photometric, tags=tags)
    with pytest.raises(ValueError, match="no pixels"):
        decode_image(data)
    with pytest.raises(ValueError, match="no pixels"):
        read_planes("a.tif", data, Reading(depth="native"))
    by_gdal = bare_tiff(values, bits, photometric, tags=tags | {34735: ("H", [1, 1, 0, 0])})
    assert not np.asarray(decode_image(by_gdal)).any()
