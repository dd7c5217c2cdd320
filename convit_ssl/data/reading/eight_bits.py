"""Images of 8 bits or fewer as RGB, and how much smaller is enough to show them."""

from __future__ import annotations

from typing import Any

from PIL import Image

STRIP_PIXELS = 1 << 22  # what is converted at a time, so that a huge image is not there twice


def reduction(size: tuple[int, int], side: int | None) -> int:
    """The whole factor that leaves twice as many pixels as are enough, at least.

    Args:
        size: in pixels.
        side: pixels of the longer side that are enough; None keeps all.
    """
    return max(1, max(size) // (2 * side)) if side else 1


def strip_rows(width: int, factor: int) -> int:
    """Rows that are converted at a time: a multiple of the factor that they are reduced by."""
    return max(1, STRIP_PIXELS // width // factor) * factor


def convert(image: Image.Image, side: int | None = None) -> Image.Image:
    """A Pillow image of 8 bits or fewer to mode RGB.

    Args:
        image: of any mode; not loaded yet.
        side: pixels of the longer side that are enough: larger images are reduced by a whole
            factor, to twice as many at least.
    """
    _mend_transparency(image)
    factor = reduction(image.size, side)
    if factor > 1:
        smaller = max(1, image.width // factor), max(1, image.height // factor)
        image.draft(None, smaller)  # JPEG alone
        factor = reduction(image.size, side)
    image.load()
    if image.mode == "RGB" and "transparency" not in image.info and factor == 1:
        return image
    if image.width * image.height <= STRIP_PIXELS:
        return _reduced(_rgb(image), factor)
    across, down = min(factor, image.width), min(factor, image.height)
    made = Image.new("RGB", (-(-image.width // across), -(-image.height // down)))
    rows = strip_rows(image.width, down)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        made.paste(_rgb(strip).reduce((across, down)), (0, top // down))
    return made


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    if factor == 1:
        return image
    return image.reduce((min(factor, image.width), min(factor, image.height)))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    return image.convert("RGB")


def _mend_transparency(image: Image.Image) -> None:
    """The transparent value of a PNG of 2 or 4 bits, stretched as Pillow stretches the pixels.

    Pillow 13 leaves it as it stands in the file. Above the file's bits it means nothing.
    """
    entry = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB") or entry is None:
        return
    tiles: Any = getattr(image, "tile", None)
    raw = str(tiles[0][3]) if tiles else ""
    bits = int(raw[2:]) if raw in ("L;2", "L;4") else 8
    most = (1 << bits) - 1
    if isinstance(entry, tuple):
        image.info["transparency"] = tuple(each & most for each in entry)
    else:
        image.info["transparency"] = (entry & most) * (255 // most)
