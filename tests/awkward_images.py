"""600 awkward image files in folders by class, and what each of them shows.

`python -m tests.awkward_images FOLDER` writes `train/` and `val/`, and `truth.json` with the kind
of each file and what should become of it: right, refused or unreadable.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.unit.data.make_images import png16, tiff

Array = np.ndarray[Any, Any]
SIDE = 24
COUNT = 600
RIGHT, REFUSED, UNREADABLE = "right", "refused", "unreadable"


@dataclass
class Written:
    """One file.

    Attributes:
        data: its bytes.
        suffix: of its name.
        seen: (H, W) or (H, W, 3), 0..1: what a viewer shows; None where it cannot be read.
        fate: `RIGHT`, `REFUSED` by name, or `UNREADABLE`.
        close: how far from `seen` a lossy format may be, in levels of 255.
    """

    data: bytes
    suffix: str
    seen: Array | None
    fate: str = RIGHT
    close: float = 1.0


def pattern(label: int, height: int = SIDE, width: int = SIDE) -> Array:
    """Black and white above, and below two greys with a gradient, in an order by class."""
    y, x = np.mgrid[:height, :width]
    lower = np.where((x < width // 2) == (label == 0), 0.25, 0.75) + 0.1 * (x % 5) / 5
    values = np.where(y < height // 2, np.where(x < width // 2, 0.0, 1.0), lower)
    return values.astype(np.float64)


def coloured(values: Array) -> Array:
    return np.stack([values, values, 1.0 - values], axis=-1)


def bytes_of(values: Array) -> Array:
    return np.rint(values * 255).astype(np.uint8)


def pillow(values: Array, kind: str, mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(bytes_of(values))
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def scaled(values: Array, dtype: Any, low: float, high: float) -> Array:
    found = low + values.astype(np.longdouble) * (high - low)
    return (np.rint(found) if np.dtype(dtype).kind in "ui" else found).astype(dtype)


def _simple(kind: str, suffix: str, grey: bool, **options: Any) -> Callable[[Array], Written]:
    close = 8.0 if kind in ("JPEG", "WEBP") and not options.get("lossless") else 1.0

    def make(values: Array) -> Written:
        shown = values if grey else coloured(values)
        return Written(pillow(shown, kind, **options), suffix, bytes_of(shown) / 255, close=close)

    return make


def _tiff(
    dtype: Any, low: float, high: float, colour: bool = False, **options: Any
) -> Callable[[Array], Written]:
    def make(values: Array) -> Written:
        shown = coloured(values) if colour else values
        stored = 1.0 - shown if options.get("photometric") == "miniswhite" else shown
        usual = {"photometric": "rgb" if colour else "minisblack", "metadata": None}
        data = tiff(scaled(stored, dtype, low, high), **{**usual, **options})
        return Written(data, ".tif", shown)

    return make


def _with_alpha(values: Array) -> Written:
    pixels = np.dstack([bytes_of(coloured(values)), np.full(values.shape, 255, np.uint8)])
    shown = coloured(values)
    pixels[: SIDE // 2, : SIDE // 2, 3] = 0
    shown[: SIDE // 2, : SIDE // 2] = 1.0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Written(file.getvalue(), ".png", bytes_of(shown) / 255)


def _palette(values: Array) -> Written:
    indices = Image.fromarray((values > 0.5).astype(np.uint8))
    indices.putpalette([0, 0, 255, 250, 200, 0])
    file = io.BytesIO()
    indices.save(file, "PNG", transparency=0)
    shown = np.where((values > 0.5)[..., None], (250 / 255, 200 / 255, 0.0), 1.0)
    return Written(file.getvalue(), ".png", shown)


def _one_bit(values: Array) -> Written:
    file = io.BytesIO()
    Image.fromarray(values > 0.5).save(file, "PNG")
    return Written(file.getvalue(), ".png", (values > 0.5).astype(float))


def _cmyk(values: Array) -> Written:
    return Written(pillow(coloured(values), "JPEG", "CMYK", quality=95), ".jpg",
                   coloured(values), close=8.0)  # fmt: skip


def _animated(kind: str, suffix: str) -> Callable[[Array], Written]:
    def make(values: Array) -> Written:
        first = Image.fromarray(bytes_of(np.round(values * 4) / 4))
        file = io.BytesIO()
        options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
        others = [Image.new("L", first.size, level) for level in (10, 200)]
        first.save(file, kind, save_all=True, append_images=others, **options)
        return Written(file.getvalue(), suffix, np.asarray(first) / 255, close=3.0)

    return make


def _deep_png(bits: int, colour: bool, transparency: str) -> Callable[[Array], Written]:
    def make(values: Array) -> Written:
        shown = coloured(values) if colour else values.copy()
        stored = scaled(shown, np.uint16, 0, (1 << bits) - 1)
        if transparency == "entry":
            entry = stored[SIDE - 1, 0].copy()
            same = (stored == entry).all(axis=-1) if colour else stored == entry
            shown[same] = 1.0
            return Written(png16(stored, transparent=entry), ".png", shown)
        if transparency == "alpha":
            alpha = np.full(values.shape, 65535, np.uint16)
            alpha[-4:, -4:] = 0
            shown[-4:, -4:] = 1.0
            return Written(png16(stored, alpha), ".png", shown)
        return Written(png16(stored), ".png", shown)

    return make


def _fill(fill: float, dtype: Any = np.float32) -> Callable[[Array], Written]:
    def make(values: Array) -> Written:
        y, x = np.mgrid[:SIDE, :SIDE]
        shown = 0.5 * values + 0.5 * (x + SIDE * y) / (SIDE * SIDE - 1)
        shown = (shown - shown[2:].min()) / (shown[2:].max() - shown[2:].min())
        stored = scaled(shown, dtype, 290, 310)
        stored[:2] = fill
        shown[:2] = 0.0
        return Written(tiff(stored, metadata=None), ".tif", shown)

    return make


def _pages(values: Array) -> Written:
    pages = np.stack([bytes_of(values), bytes_of(1.0 - values), bytes_of(values * 0)])
    return Written(tiff(pages, photometric="minisblack"), ".tif", bytes_of(values) / 255)


def _exif(values: Array) -> Written:
    exif = Image.Exif()
    exif[0x0112] = 6
    return Written(pillow(coloured(values), "JPEG", quality=95, exif=exif), ".jpg",
                   coloured(values), close=8.0)  # fmt: skip


def _shape(height: int, width: int) -> Callable[[Array], Written]:
    def make(values: Array) -> Written:
        rows = np.linspace(0, SIDE - 1, height).round().astype(int)
        columns = np.linspace(0, SIDE - 1, width).round().astype(int)
        shown = values[rows][:, columns]
        return Written(pillow(shown, "PNG"), ".png", bytes_of(shown) / 255)

    return make


def _named(make: Callable[[Array], Written], suffix: str) -> Callable[[Array], Written]:
    def renamed(values: Array) -> Written:
        found = make(values)
        found.suffix = suffix
        return found

    return renamed


def _refused(data: Callable[[Array], bytes], suffix: str = ".tif") -> Callable[[Array], Written]:
    return lambda values: Written(data(values), suffix, None, REFUSED)


def _broken(data: Callable[[Array], bytes], suffix: str) -> Callable[[Array], Written]:
    return lambda values: Written(data(values), suffix, None, UNREADABLE)


def _channels(count: int) -> Callable[[Array], bytes]:
    def data(values: Array) -> bytes:
        pixels = np.stack([scaled(values, np.uint16, 0, 65535)] * count, axis=-1)
        extra = ["unspecified"] * (count - 3)
        return tiff(pixels, photometric="rgb", extrasamples=extra, metadata=None)

    return data


def _separated(values: Array) -> bytes:
    pixels = np.stack([scaled(values, np.uint16, 0, 65535)] * 4, axis=-1)
    return tiff(pixels, photometric="separated", metadata=None)


KINDS: dict[str, Callable[[Array], Written]] = {
    "jpeg": _simple("JPEG", ".jpg", False, quality=95, subsampling=0),
    "jpeg grey": _simple("JPEG", ".jpeg", True, quality=95),
    "jpeg progressive": _simple("JPEG", ".jpg", False, quality=95, subsampling=0, progressive=True),
    "jpeg cmyk": _cmyk,
    "jpeg turned by exif": _exif,
    "png": _simple("PNG", ".png", False),
    "png grey": _simple("PNG", ".png", True),
    "png alpha": _with_alpha,
    "png palette with transparency": _palette,
    "png 1-bit": _one_bit,
    "png animated": _animated("PNG", ".png"),
    "gif": _simple("GIF", ".gif", True),
    "gif animated": _animated("GIF", ".gif"),
    "webp": _simple("WEBP", ".webp", False, lossless=True),
    "webp animated": _animated("WEBP", ".webp"),
    "bmp": _simple("BMP", ".bmp", False),
    "png named jpg": _named(_simple("PNG", ".png", False), ".jpg"),
    "tiff named png": _named(_tiff(np.uint8, 0, 255), ".png"),
    "deep png named jpg": _named(_deep_png(16, False, "none"), ".jpg"),
    **{
        f"png u{bits}{' colour' if colour else ''} {transparency}": _deep_png(
            bits, colour, transparency
        )
        for bits in (9, 12, 16)
        for colour in (False, True)
        for transparency in ("none", "alpha", "entry")
    },
    "tiff u8 miniswhite": _tiff(np.uint8, 0, 255, photometric="miniswhite"),
    "tiff u10": _tiff(np.uint16, 0, 1023),
    "tiff u14 colour": _tiff(np.uint16, 0, 16383, colour=True),
    "tiff u16 big-endian": _tiff(np.uint16, 0, 65535, byteorder=">"),
    "tiff u16 miniswhite": _tiff(np.uint16, 0, 65535, photometric="miniswhite"),
    "tiff u16 deflate": _tiff(np.uint16, 0, 65535, compression="zlib", predictor=True),
    "tiff u32": _tiff(np.uint32, 0, 2**32 - 1),
    "tiff i8": _tiff(np.int8, -128, 127),
    "tiff i16": _tiff(np.int16, -1000, 2000, byteorder=">"),
    "tiff i32": _tiff(np.int32, -(2**31), 2**31 - 1, photometric="miniswhite"),
    "tiff f16": _tiff(np.float16, -2, 6),
    "tiff f32 NaN": _fill(np.nan),
    "tiff f32 -9999": _fill(-9999.0),
    "tiff f64": _tiff(np.float64, 1e5, 1.1e5),
    "tiff pages": _pages,
    "thin": _shape(1, 500),
    "tall": _shape(700, 1),
    "oblong": _shape(30, 90),
    "one pixel wide of two": _shape(2, 1),
    "huge": _shape(2500, 2500),
    "tiff 5 channels": _refused(_channels(5)),
    "tiff cmyk 16": _refused(_separated),
    "tiff complex": _refused(lambda values: tiff(values.astype(np.complex64), metadata=None)),
    "empty": _broken(lambda _: b"", ".png"),
    "text": _broken(lambda _: b"not an image\n" * 9, ".jpg"),
    "png cut off": _broken(lambda v: pillow(v, "PNG")[:-60], ".png"),
    "deep png cut off": _broken(lambda v: _deep_png(16, True, "none")(v).data[:-60], ".png"),
    "tiff cut off": _broken(lambda v: _tiff(np.int16, -9, 9)(v).data[:-60], ".tif"),
}
SPARSE = {"huge": 2, "tiff 5 channels": 3, "tiff cmyk 16": 3, "tiff complex": 3, "empty": 3,
          "text": 3, "png cut off": 3, "deep png cut off": 3, "tiff cut off": 3}  # fmt: skip


def write(folder: Path, count: int = COUNT) -> dict[str, tuple[str, Written]]:
    """Write the collection; path below ``folder`` -> (kind, what was written)."""
    kinds = [kind for kind in KINDS for _ in range(SPARSE.get(kind, 0))]
    often = [kind for kind in KINDS if kind not in SPARSE]
    kinds += [often[number % len(often)] for number in range(count - len(kinds))]
    truth = {}
    for number, kind in enumerate(kinds):
        label = number % 2
        made = KINDS[kind](pattern(label))
        split = "val" if number // 2 % 5 == 4 else "train"
        name = f"{split}/{'ab'[label]}/{number:03}_{kind.replace(' ', '_')}{made.suffix}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(made.data)
        truth[name] = kind, made
    table = {name: {"kind": kind, "fate": made.fate} for name, (kind, made) in truth.items()}
    (folder / "truth.json").write_text(json.dumps(table, indent=1))
    return truth


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    written = write(parser.parse_args().folder)
    print(f"{len(written)} files of {len(KINDS)} kinds")
