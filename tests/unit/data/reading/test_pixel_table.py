"""Every combination of colour, type, photometric, transparency and format: right, or refused.

The right value is worked out from the numbers that are written, not by the code under test.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pytest

from convit_ssl.data.reading.pixels import decode_array, decode_image
from tests.unit.data.make_images import png16, tiff

SIDE = 40
# Type, (black, white) that were written.
TYPES: dict[str, tuple[Any, tuple[float, float]]] = {
    "u8": (np.uint8, (0, 255)),
    **{f"u{bits}": (np.uint16, (0, 2**bits - 1)) for bits in range(9, 17)},
    "i8": (np.int8, (-128, 127)),
    "i16": (np.int16, (-1024, 3071)),
    "i32": (np.int32, (-(2**31), 2**31 - 1)),
    "u32": (np.uint32, (0, 2**32 - 1)),
    "f16": (np.float16, (-2.0, 6.0)),
    "f32": (np.float32, (0.0, 1.0)),
    "f64": (np.float64, (290.0, 310.0)),
}
PNG_TYPES = [name for name, (dtype, _) in TYPES.items() if dtype is np.uint16]
# Away from the ends of the range: what cannot be seen does not count.
TRANSPARENT = (slice(15, 25), slice(8, 16))
HALF = (slice(15, 25), slice(16, 24))


def content(name: str, colour: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values of a type, and the shares of white that they stand for."""
    dtype, (black, white) = TYPES[name]
    ramp = np.linspace(0.0, 1.0, SIDE * SIDE).reshape(SIDE, SIDE)
    share = np.stack([ramp, ramp[::-1], ramp.T], axis=-1) if colour else ramp
    values = black + share.astype(np.longdouble) * (white - black)
    if np.dtype(dtype).kind in "ui":
        values = np.rint(values)
    values = values.astype(dtype)
    written = values.astype(np.longdouble)
    return values, ((written - black) / (white - black)).astype(np.float64)


def opacity(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Alpha in a type, transparent in one corner and half so beside it, and what it stands for."""
    dtype, (_, white) = TYPES[name]
    opaque = 1.0 if np.dtype(dtype).kind == "f" else float(min(white, np.iinfo(dtype).max))
    if name == "i16":
        opaque = 32767.0
    alpha = np.full((SIDE, SIDE), opaque)
    alpha[TRANSPARENT] = 0
    alpha[HALF] = np.rint(opaque / 2) if opaque > 1 else 0.5
    return alpha.astype(dtype), alpha / opaque


def check(data: bytes, share: np.ndarray, alpha: np.ndarray | None, inverted: bool) -> None:
    share = 1.0 - share if inverted else share
    share = share if share.ndim == 3 else np.repeat(share[..., None], 3, axis=-1)
    if alpha is not None:
        share = 1.0 + (share - 1.0) * alpha[..., None]
    found = np.asarray(decode_image(data)).astype(float)
    assert np.abs(found - share * 255.0).max() <= 1.0
    assert (decode_array(data) == found).all()


def possible(name: str, colour: bool, white_is_zero: bool, transparency: str, _: str) -> bool:
    """TIFF has MinIsWhite of grey alone; multiplied by alpha are values from 0 (black) on."""
    if white_is_zero and (colour or transparency == "tied"):
        return False
    return transparency != "tied" or TYPES[name][1][0] == 0


EVERY = itertools.product(TYPES, (False, True), (False, True), ("none", "straight", "tied"), "<>")
TABLE = [row for row in EVERY if possible(*row)]


@pytest.mark.parametrize(("name", "colour", "white_is_zero", "transparency", "order"), TABLE)
def test_tiff(name: str, colour: bool, white_is_zero: bool, transparency: str, order: str) -> None:
    pytest.importorskip("tifffile")
    values, share = content(name, colour)
    options: dict[str, Any] = {"byteorder": order, "metadata": None}
    options["photometric"] = "rgb" if colour else "miniswhite" if white_is_zero else "minisblack"
    alpha = None
    if transparency != "none":
        stored, alpha = opacity(name)
        pixels = values if colour else values[..., None]
        if transparency == "tied":
            tied = pixels.astype(np.float64) * alpha[..., None]
            whole = np.dtype(values.dtype).kind in "ui"
            pixels = (np.rint(tied) if whole else tied).astype(values.dtype)
        values = np.concatenate([pixels, stored[..., None]], axis=-1)
        options["extrasamples"] = ["unassalpha" if transparency == "straight" else "assocalpha"]
        options["planarconfig"] = "contig"
    check(tiff(values, **options), share, alpha, white_is_zero)


@pytest.mark.parametrize("name", PNG_TYPES)
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("transparency", ["none", "alpha", "entry"])
def test_png(name: str, colour: bool, transparency: str) -> None:
    values, share = content(name, colour)
    if transparency == "alpha":
        stored, alpha = opacity(name)
        check(png16(values, stored), share, alpha, inverted=False)
    elif transparency == "entry":
        value = values[0, 5]
        same = values == value
        alpha = 1.0 - (same if same.ndim == 2 else same.all(axis=-1))
        assert 0 < alpha.sum() < alpha.size
        check(png16(values, transparent=value), share, alpha, inverted=False)
    else:
        check(png16(values), share, None, inverted=False)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("name", ["u8", "u12", "i16", "f32"])
def test_layouts_of_tiff(name: str, planar: str, compression: Any, tile: Any) -> None:
    pytest.importorskip("tifffile")
    values, share = content(name, colour=True)
    if planar == "separate":
        values = np.moveaxis(values, -1, 0)
    data = tiff(
        values, photometric="rgb", planarconfig=planar, compression=compression, tile=tile,
        metadata=None, bigtiff=tile is not None,
    )  # fmt: skip
    check(data, share, None, inverted=False)


@pytest.mark.parametrize(
    ("what", "channels", "dtype", "photometric", "extra"),
    [
        ("5 channels", 5, np.uint16, "rgb", ["unspecified"] * 2),
        ("4 channels", 4, np.float32, "minisblack", ["unspecified"] * 3),
        ("16-bit CMYK", 4, np.uint16, "separated", None),
        ("complex", 1, np.complex64, "minisblack", None),
    ],
)
def test_what_would_not_come_out_right_is_refused_by_name(
    what: str, channels: int, dtype: Any, photometric: str, extra: Any
) -> None:
    pytest.importorskip("tifffile")
    shape = (8, 8, channels) if channels > 1 else (8, 8)
    options: dict[str, Any] = {"extrasamples": extra} if extra else {}
    if channels > 1:
        options["planarconfig"] = "contig"
    data = tiff(np.zeros(shape, dtype), photometric=photometric, metadata=None, **options)
    with pytest.raises(ValueError, match=what):
        decode_image(data)


@pytest.mark.parametrize("name", ["u16", "i16", "f32"])
def test_a_channel_without_a_meaning_is_not_transparency(name: str) -> None:
    pytest.importorskip("tifffile")
    values, share = content(name, colour=True)
    pixels = np.concatenate([values, np.zeros((SIDE, SIDE, 1), values.dtype)], axis=-1)
    data = tiff(pixels, photometric="rgb", extrasamples=["unspecified"], metadata=None)
    check(data, share, None, inverted=False)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", ["u12", "u16", "u32", "i8", "i16", "i32", "f16", "f32", "f64"])
def test_without_tifffile_it_is_right_or_refused_with_what_to_install(
    name: str, order: str, compression: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tifffile")
    for colour in (False, True):
        values, share = content(name, colour)
        photometric = "rgb" if colour else "minisblack"
        data = tiff(values, photometric=photometric, byteorder=order, compression=compression)
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "tifffile", None)
            refused = ""
            try:
                found = np.asarray(decode_image(data))
            except ValueError as error:
                refused = str(error)
        if refused:
            assert "convit_ssl[tiff]" in refused
            assert name not in ("u12", "u16"), "usual enough to be read at all times"
            continue
        share = share if colour else np.repeat(share[..., None], 3, axis=-1)
        assert np.abs(found - share * 255.0).max() <= 1.0
