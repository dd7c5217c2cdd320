"""What is wrong with single images: unreadable, blank, black, of another depth or size."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from convit_ssl.data.checks.digests import content_digest
from convit_ssl.data.loading.storage import is_there, read_bytes
from convit_ssl.data.readers import reads_by_path
from convit_ssl.data.reading.pixels import Reading, image_header
from convit_ssl.data.reading.viewing import view_image
from convit_ssl.errors import UserError
from convit_ssl.machine import available_cores

SIDE = 32  # pixels of the small picture by which images are compared
COLOUR_SIDE = 8
# Of the 0.1st and 99.9th percentiles of the pixels, 0..255.
FLAT = 3
DARK = 12
# A shape or a size that this share of the images has is that of the collection.
USUAL = 0.9
MUCH = 4.0  # times larger or smaller than the median

Picture = np.ndarray[Any, np.dtype[np.float32]]
Progress = Callable[[int, int], None]


@dataclass
class ImageFacts:
    """What is known of one image.

    Attributes:
        digest: SHA-256 of the file's bytes.
        size: (height, width) in pixels; (0, 0) where it cannot be read.
        mode: Pillow's, which says depth and colour.
        problem: unreadable, truncated, black, blank; "" where it is well.
        reason: of the problem.
        grey: (32, 32) grey values, 0..255; None where it cannot be read.
        colour: (8, 8, 2) red and blue less green.
    """

    digest: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    problem: str = ""
    reason: str = ""
    grey: Picture | None = field(default=None, repr=False)
    colour: Picture | None = field(default=None, repr=False)


def inspect(path: str, reading: Reading | None = None) -> ImageFacts:
    """Read one image and say what is wrong with it; nothing is raised for a bad image."""
    facts = ImageFacts()
    try:
        data = None
        if reads_by_path(path, reading or Reading()) and is_there(path):
            facts.digest = content_digest(path)
        else:
            data = read_bytes(path)
            facts.digest = hashlib.sha256(data).hexdigest()
        header = image_header(path)
        height, width, facts.mode = header.height, header.width, header.mode
        image = view_image(path, data, reading)
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds
        facts.problem, facts.reason = _fault(error)
        return facts
    facts.size = (height, width)
    facts.grey = small_grey(image)
    facts.colour = _small_colour(image)
    low, high = np.quantile(np.asarray(image.convert("L")), [0.001, 0.999])
    if high <= DARK:
        facts.problem, facts.reason = "black", f"99.9 % of its pixels are at most {high:.0f} of 255"
    elif high - low <= FLAT:
        facts.problem, facts.reason = "blank", f"its pixels are all near {low:.0f} of 255"
    return facts


def inspect_all(
    paths: Sequence[str], reading: Reading | None = None, progress: Progress | None = None
) -> list[ImageFacts]:
    """`inspect` of many images, by as many threads as there are cores."""
    found: list[ImageFacts] = []
    with ThreadPoolExecutor(max(1, available_cores())) as pool:
        for facts in _in_order(pool, paths, reading):
            found.append(facts)
            if progress is not None:
                progress(len(found), len(paths))
    return found


def _in_order(
    pool: ThreadPoolExecutor, paths: Sequence[str], reading: Reading | None
) -> Iterator[ImageFacts]:
    """A few thousand at a time, so that a million paths are not queued at once."""
    for first in range(0, len(paths), 2048):
        some = [str(path) for path in paths[first : first + 2048]]
        yield from pool.map(lambda path: inspect(path, reading), some)


def small_grey(image: Image.Image, side: int = SIDE) -> Picture:
    """The whole image as (side, side) grey values, 0..255."""
    grey = image.convert("L")
    enough = min(grey.size) >= side
    method = Image.Resampling.BOX if enough else Image.Resampling.BILINEAR
    return np.asarray(grey.resize((side, side), method), dtype=np.float32)


def _small_colour(image: Image.Image) -> Picture:
    small = image.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    chroma: Picture = pixels[..., [0, 2]] - pixels[..., [1]]
    return chroma


def _fault(error: Exception) -> tuple[str, str]:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        return "unreadable", "not an image that Pillow knows"
    if isinstance(error, FileNotFoundError):
        return "unreadable", "no such file"
    kind = "truncated" if "truncat" in text.lower() or "unexpected end" in text else "unreadable"
    return kind, text[:200]


def odd_ones(facts: Sequence[ImageFacts]) -> dict[int, str]:
    """Images of another depth or size than the rest: position -> what is odd.

    A mode is odd where nine images in ten have another one. A size is odd where nine in ten have
    the same, or where a side is more than four times larger or smaller than the median.
    """
    read = [position for position, one in enumerate(facts) if one.size[0]]
    odd: dict[int, str] = {}
    if len(read) < 10:
        return odd
    mode, modes = Counter(facts[p].mode for p in read).most_common(1)[0]
    size, sizes = Counter(facts[p].size for p in read).most_common(1)[0]
    sides = np.array([facts[p].size for p in read], dtype=float)
    median = np.median(sides, axis=0)
    for position, (height, width) in zip(read, sides, strict=True):
        found = []
        if modes >= USUAL * len(read) and facts[position].mode != mode:
            found.append(f"{depth(facts[position].mode)}, where the rest is {depth(mode)}")
        factor = max(height / median[0], median[0] / height, width / median[1], median[1] / width)
        one_size = sizes >= USUAL * len(read) and facts[position].size != size
        if one_size or factor > MUCH:
            usual = f"{size[0]} x {size[1]}" if one_size else "{:.0f} x {:.0f}".format(*median)
            found.append(f"{height:.0f} x {width:.0f} pixels, where the rest is {usual}")
        if found:
            odd[position] = "; ".join(found)
    return odd


def depth(mode: str) -> str:
    """A Pillow mode in words."""
    words = {
        "1": "1-bit", "L": "8-bit grey", "LA": "8-bit grey with transparency", "P": "palette",
        "RGB": "8-bit colour", "RGBA": "8-bit colour with transparency", "CMYK": "CMYK",
        "F": "floating point",
    }  # fmt: skip
    if ";float" in mode:
        return "floating point"
    if mode.startswith("RGB;"):
        return "colour of more than 8 bits"
    if mode.startswith("I"):
        return "grey of more than 8 bits"
    return words.get(mode, f"mode {mode}")
