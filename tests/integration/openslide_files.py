"""Slide pyramids read by us and by OpenSlide, pixel by pixel.

OpenSlide is not among this project's requirements: ``pip install openslide-python openslide-bin``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.data.listing.scenes import open_scene
from convit_ssl.data.reading.value_range import Reading

Array = np.ndarray[Any, Any]
_HEIGHT, _WIDTH, _TILE = 640, 1024, 128
_APERIO = f"Aperio Image Library v12\n{_WIDTH}x{_HEIGHT} |AppMag = 20|MPP = 0.5"
# x, y, width and height in the pixels of the level, as fractions of it.
_REGIONS = ((0.0, 0.0, 1.0, 1.0), (0.25, 0.25, 0.25, 0.5), (0.5, 0.0, 0.5, 0.25))


def picture(side: int = 1) -> Array:
    """Smooth tissue colours with a pink field on glass, at 1/side of its size."""
    y, x = np.mgrid[0:_HEIGHT:side, 0:_WIDTH:side] / 40.0
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1)
    pixels = np.full(waves.shape, 240.0)
    inside = (x > 4) & (y > 3)
    pixels[inside] = 150 + 60 * waves[inside]
    return np.rint(pixels).astype(np.uint8)


def write_slides(folder: Path) -> Iterator[Path]:
    """A pyramid of three levels as Aperio writes it, and as any tiled TIFF, in two compressions."""
    import tifffile

    for name, compression in (
        ("aperio_jpeg.svs", "jpeg"), ("generic_deflate.tif", "zlib"), ("generic_jpeg.tif", "jpeg"),
    ):  # fmt: skip
        options: dict[str, Any] = {
            "tile": (_TILE, _TILE), "compression": compression, "photometric": "rgb",
            "metadata": None,
        }  # fmt: skip
        if name.endswith(".svs"):
            options["description"] = _APERIO
        with tifffile.TiffWriter(folder / name) as file:
            file.write(picture(), **options)
            if name.endswith(".svs"):  # the thumbnail comes second
                thumbnail = picture(8)
                file.write(thumbnail, photometric="rgb", metadata=None, description=_APERIO)
            reduced = {} if name.endswith(".svs") else {"subfiletype": 1}
            for level in (2, 4):
                file.write(picture(level), **options, **reduced)
        yield folder / name


def compare_openslide(folder: Path) -> dict[str, Any]:
    """Regions of all levels that are equal, and the names of the files where one is not."""
    import openslide

    found: dict[str, Any] = {
        "library": "openslide", "files": 0, "images": 0, "refused": 0, "other": []
    }  # fmt: skip
    for path in write_slides(folder):
        scene = open_scene(str(path), Reading(depth="native"))
        same = 0
        with openslide.OpenSlide(path) as slide:
            assert slide.level_count == len(scene.downsamples) == 3, path.name
            assert (scene.width, scene.height) == slide.dimensions
            if (size := slide.properties.get("openslide.mpp-x")) is not None:
                assert scene.spacing is not None
                assert abs(scene.spacing[1] - float(size) / 1000) < 1e-9
            for level, (width, height) in enumerate(slide.level_dimensions):
                for box in _REGIONS:
                    x, y, w, h = (
                        round(a * b) for a, b in zip(box, (width, height) * 2, strict=True)
                    )
                    down = slide.level_downsamples[level]
                    corner = round(x * down), round(y * down)
                    theirs = np.asarray(slide.read_region(corner, level, (w, h)))[..., :3]
                    ours = scene.at_level(level, x, y, w, h).values
                    same += bool(np.array_equal(ours, theirs))
        if same == 3 * len(_REGIONS):
            found["files"] += 1
        else:
            found["other"].append(path.name)
        found["images"] += same
    return found
