"""Thumbnails of a whole collection in sheets that a page loads when it needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from convit_ssl.writing import whole_file

PER_ROW = 16
PER_SHEET = PER_ROW * PER_ROW
FOLDER = "thumbnails"
_QUALITY = 82


def side_for(images: int) -> int:
    """Pixels of a thumbnail: a sheet is loaded at a time, and all of them lie on the disk."""
    return 112 if images <= 2_000 else 80 if images <= 20_000 else 56


def by_place(points: Float[np.ndarray, "images 2"]) -> Int[np.ndarray, " images"]:
    """The order of images along a Z curve over the map: neighbours come to lie in one sheet."""
    low, high = points.min(axis=0), points.max(axis=0)
    cells = ((points - low) / np.maximum(high - low, 1e-9) * 1023).astype(np.int64)
    code = np.zeros(len(points), np.int64)
    for bit in range(10):
        code |= ((cells[:, 0] >> bit) & 1) << (2 * bit) | ((cells[:, 1] >> bit) & 1) << (
            2 * bit + 1
        )
    return np.argsort(code, kind="stable")


def write_sheets(
    folder: Path,
    order: Int[np.ndarray, " images"],
    load: Callable[[int], Image.Image],
    side: int,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> UInt8[np.ndarray, "images 2"]:
    """Write ``0.jpg``, ``1.jpg``, ... of 256 thumbnails each.

    Args:
        folder: of the sheets; other numbered sheets in it are deleted.
        order: row of the image at each place.
        load: the image of a row; may raise.
        side: pixels of a place.
        workers: threads; decoders let go of Python's lock.
        progress: called with (images done, images).

    Returns:
        Width and height in pixels that each image (by row) takes up of its place's upper left; 0
        where it could not be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = np.zeros((len(order), 2), np.uint8)
    sheets = -(-len(order) // PER_SHEET)
    with ThreadPoolExecutor(workers) as pool:
        for number in range(sheets):
            rows = [int(row) for row in order[number * PER_SHEET : (number + 1) * PER_SHEET]]
            height = -(-len(rows) // PER_ROW) * side
            sheet = Image.new("RGB", (PER_ROW * side, height), (128, 128, 128))
            for at, small in enumerate(pool.map(lambda row: _small(load, row, side), rows)):
                if small is not None:
                    sheet.paste(small, (at % PER_ROW * side, at // PER_ROW * side))
                    sizes[rows[at]] = small.size
            with whole_file(folder / f"{number}.jpg") as partial:
                sheet.save(partial, "JPEG", quality=_QUALITY)
            if progress is not None:
                progress(min((number + 1) * PER_SHEET, len(order)), len(order))
    _remove_others(folder, sheets)
    return sizes


def _small(load: Callable[[int], Image.Image], row: int, side: int) -> Image.Image | None:
    try:
        image = load(row).convert("RGB")
    except Exception:  # Pillow raises many kinds; one picture is no reason to lose the rest
        return None
    factor = side / max(image.size)
    size = tuple(max(1, round(length * factor)) for length in image.size)
    # Enlarged pixels stay squares: a few of them are all that there is to see.
    how = Image.Resampling.NEAREST if factor > 2 else Image.Resampling.LANCZOS
    return image.resize((size[0], size[1]), how)


def _remove_others(folder: Path, sheets: int) -> None:
    names: Sequence[Path] = list(folder.glob("*.jpg"))
    for path in names:
        if path.stem.isdecimal() and int(path.stem) >= sheets:
            path.unlink()
