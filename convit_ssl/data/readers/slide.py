"""Whole-slide images by tiffslide: tiles of the pyramid where there is tissue."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tiffslide

from convit_ssl.data.listing.part_names import part_fields
from convit_ssl.data.readers import ImageFile
from convit_ssl.data.readers.handles import Handles
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import ImageHeader, check_size
from convit_ssl.data.reading.regions import Scene
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError

_LEAST_SATURATION = 15  # of 255: what is paler is glass, whatever Otsu's threshold says
_DARK = 25  # of 255: darker is the edge of the glass or ink, and no tissue
_SMOOTHED = 5  # pixels of the thumbnail


def _open(path: str) -> tiffslide.TiffSlide:
    return tiffslide.TiffSlide(path)


_SLIDES: Handles[tiffslide.TiffSlide] = Handles(_open, 4)


class SlideScene(Scene):
    """A slide; 8-bit RGB."""

    def __init__(self, path: str) -> None:
        self.slide = _SLIDES.get(path)
        width, height = self.slide.dimensions
        super().__init__(height, width, _spacing(self.slide), self.slide.level_downsamples)

    def at_level(self, level: int, x: int, y: int, width: int, height: int) -> Planes:
        """A rectangle of a level, as tiffslide reads it.

        Raises:
            ValueError: the slide is damaged there.
        """
        down = self.downsamples[level]
        # tiffslide takes the corner in pixels of the full image, and cuts off the fraction.
        corner = int(np.ceil(x * down - 1e-6)), int(np.ceil(y * down - 1e-6))
        try:
            read: Any = self.slide.read_region(corner, level, (width, height), as_array=True)
        except Exception as error:  # as many kinds as there are compressions
            raise ValueError(f"the slide is damaged or cut off: {error}") from error
        values = np.asarray(read)
        return Planes(values[..., :3], ("R", "G", "B"))

    def interest(self, longest: int = 1024) -> npt.NDArray[np.bool_]:
        """Where there is tissue, in a small picture: what has more colour than glass."""
        scale = max(1.0, max(self.height, self.width) / longest)
        small = self.region(0, 0, self.width, self.height, scale).values
        return tissue(small)


def tissue(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where a stained slide has tissue: saturation above Otsu's threshold, and not black.

    Args:
        picture: (H, W, 3).
    """
    smooth = cv2.medianBlur(np.ascontiguousarray(picture), _SMOOTHED)
    hsv = cv2.cvtColor(smooth, cv2.COLOR_RGB2HSV)
    saturation, value = hsv[..., 1], hsv[..., 2]
    bright = value > _DARK
    if not bright.any():
        return np.zeros(picture.shape[:2], bool)
    threshold, _ = cv2.threshold(saturation[bright], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    found: npt.NDArray[np.bool_] = (saturation > max(threshold, _LEAST_SATURATION)) & bright
    return found


def _spacing(slide: tiffslide.TiffSlide) -> tuple[float, float] | None:
    across, down = (slide.properties.get(f"tiffslide.mpp-{axis}") for axis in "xy")
    if not across or not down:
        return None
    return float(down) / 1000, float(across) / 1000


def scene(file: ImageFile) -> SlideScene:
    """The slide, of which rectangles are read."""
    return SlideScene(file.local())


def parts(file: ImageFile, spec: str) -> list[str]:
    """``level:2`` for a whole level; tiles are made by ``data.tiles``.

    Raises:
        UserError: something else.
    """
    if spec in ("", "first"):
        return []
    name, _, number = spec.partition(":")
    if name != "level" or not number.isdigit():
        raise UserError(f"data.parts={spec}: for slides, give level:2, or set data.tiles")
    return [f"level={number}"]


def header(file: ImageFile, part: str) -> ImageHeader:
    """Size of a level."""
    width, height = _SLIDES.get(file.local()).level_dimensions[_level(file, part)]
    return ImageHeader(height, width, False, "8 bits", "RGB")


def _level(file: ImageFile, part: str) -> int:
    slide = _SLIDES.get(file.local())
    number = int(part_fields(part).get("level", 0))
    if not 0 <= number < slide.level_count:
        raise ValueError(f"it has {slide.level_count} levels, and no level {number}")
    return number


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """A whole level; the full image without a part."""
    level = _level(file, part)
    whole = SlideScene(file.local())
    width, height = whole.slide.level_dimensions[level]
    check_size(width, height)
    planes = whole.at_level(level, 0, 0, width, height)
    down = whole.downsamples[level]
    if whole.spacing is not None:
        planes.spacing = whole.spacing[0] * down, whole.spacing[1] * down
    return planes
