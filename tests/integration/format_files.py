"""A small collection of every image format, written and read again by the format's own library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SIDE = 32


def stripes(label: int, rng: np.random.Generator, side: int = SIDE, channels: int = 1) -> Array:
    """(side, side, channels) from 0 to 1: noise, and stripes whose direction is the class."""
    rows = np.arange(side)[:, None] if label else np.arange(side)[None]
    bright = ((rows + rng.integers(8)) % 8 < 4) * rng.uniform(0.4, 0.7)
    noise = rng.uniform(0.0, 0.3, (side, side, channels))
    return np.asarray(bright[..., None] + noise)


def _rgb(label: int, rng: np.random.Generator, side: int = SIDE) -> Array:
    return np.rint(255 * stripes(label, rng, side, 3)).astype(np.uint8)


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: of the format and the library that writes and reads it.
        package: what has to be importable.
        suffix: of its files.
        write: writes one file of a class.
        read: what the library reads: pairs of a part ("" of a file that is one image) and an
            (H, W, C) array.
        options: of `train`, beyond ``data=folder``.
        files: of each class, in train and in val.
    """

    name: str
    package: str
    suffix: str
    write: Callable[[Path, int, np.random.Generator], None]
    read: Callable[[str], Iterator[tuple[str, Array]]]
    options: tuple[str, ...] = ("data.depth=native",)
    files: tuple[int, int] = (12, 6)

    def write_collection(self, root: Path) -> list[Path]:
        """``train`` and ``val`` of two classes; the files."""
        rng = np.random.default_rng(0)
        made = []
        for split, count in zip(("train", "val"), self.files, strict=True):
            for label in range(2):
                folder = root / split / f"class{label}"
                folder.mkdir(parents=True)
                for number in range(count):
                    made.append(folder / f"{number}{self.suffix}")
                    self.write(made[-1], label, rng)
        return made


def _write_dicom(path: Path, label: int, rng: np.random.Generator) -> None:
    import pydicom
    from pydicom.data import get_testdata_file

    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    units = np.rint(stripes(label, rng)[..., 0] * 1000 - 900)
    data.Rows = data.Columns = SIDE
    data.PixelData = (units - float(data.RescaleIntercept)).astype(np.int16).tobytes()
    data.save_as(path)


def _read_dicom(path: str) -> Iterator[tuple[str, Array]]:
    import pydicom
    from pydicom.pixels.processing import apply_rescale

    data = pydicom.dcmread(path)
    yield "", apply_rescale(data.pixel_array, data)[..., None]


def _write_nifti(path: Path, label: int, rng: np.random.Generator) -> None:
    import nibabel

    planes = [np.rint(1000 * stripes(label, rng)[..., 0]) for _ in range(4)]
    kind: Any = nibabel.Nifti1Image
    # The first axis runs to the left, as scanners write it.
    made = kind(np.stack(planes, axis=2).astype(np.int16), np.diag([-1.0, 1.0, 2.0, 1.0]))
    nibabel.save(made, path)


def _write_pair(path: Path, label: int, rng: np.random.Generator) -> None:
    import nibabel

    planes = [np.rint(1000 * stripes(label, rng)[..., 0]) for _ in range(4)]
    kind: Any = nibabel.Nifti1Pair
    made = kind(np.stack(planes, axis=2).astype(np.int16), np.diag([-1.0, 1.0, 2.0, 1.0]))
    nibabel.save(made, path)


def _read_nifti(path: str) -> Iterator[tuple[str, Array]]:
    import nibabel

    turned: Any = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]
    values = np.asanyarray(turned.dataobj)
    for number in range(values.shape[2]):
        yield f"axial={number}", np.rot90(values[..., number])[..., None]


def _write_pages(path: Path, label: int, rng: np.random.Generator) -> None:
    import tifffile

    pages = np.stack([stripes(label, rng)[..., 0] for _ in range(4)])
    tifffile.imwrite(path, np.rint(4000 * pages).astype(np.uint16), photometric="minisblack")


def _read_pages(path: str) -> Iterator[tuple[str, Array]]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        for number, page in enumerate(file.pages):
            yield f"page={number}", page.asarray()[..., None]


def _write_ome(path: Path, label: int, rng: np.random.Generator) -> None:
    import tifffile

    planes = np.stack([stripes(label, rng, channels=3).transpose(2, 0, 1) for _ in range(2)])
    metadata = {
        "axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP", "TRITC"]},
        "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5,
    }  # fmt: skip
    tifffile.imwrite(path, np.rint(4000 * planes).astype(np.uint16), metadata=metadata)


def _read_ome(path: str) -> Iterator[tuple[str, Array]]:
    import tifffile

    for number, plane in enumerate(tifffile.imread(path)):
        yield f"z={number}", plane.transpose(1, 2, 0)


def _write_slide(
    path: Path, label: int, rng: np.random.Generator, compression: str = "zlib"
) -> None:
    import imagecodecs  # noqa: F401  (compresses the tiles)
    import tifffile

    full = np.full((128, 192, 3), 240, np.uint8)
    tissue = _rgb(label, rng, 128)
    full[:, 64:] = tissue * np.array([0.9, 0.4, 0.8])
    text = "Aperio Image Library v12\n192x128 |AppMag = 20|MPP = 0.5"
    options: Any = {
        "tile": (64, 64), "compression": compression, "photometric": "rgb", "metadata": None,
    }  # fmt: skip
    with tifffile.TiffWriter(path) as file:
        file.write(full, description=text, **options)
        file.write(full[::8, ::8], description=text, photometric="rgb", metadata=None)
        file.write(full[::4, ::4], description=text, **options)


def _read_slide(path: str) -> Iterator[tuple[str, Array]]:
    import tiffslide

    with tiffslide.TiffSlide(path) as slide:
        for x, y in ((64, 0), (128, 32), (100, 50)):
            region = slide.read_region((x, y), 0, (SIDE, SIDE), as_array=True)
            yield f"tile={SIDE},x={x},y={y},scale=1", np.asarray(region)[..., :3]


def _write_jpeg_slide(path: Path, label: int, rng: np.random.Generator) -> None:
    _write_slide(path, label, rng, "jpeg")


def _read_by_openslide(path: str) -> Iterator[tuple[str, Array]]:
    import openslide

    with openslide.OpenSlide(path) as slide:
        for x, y in ((64, 0), (128, 32), (100, 50)):
            region = np.asarray(slide.read_region((x, y), 0, (SIDE, SIDE)))[..., :3]
            yield f"tile={SIDE},x={x},y={y},scale=1", region


def _write_geotiff(path: Path, label: int, rng: np.random.Generator) -> None:
    import rasterio

    values = np.rint(3000 * stripes(label, rng, channels=5)).astype(np.uint16).transpose(2, 0, 1)
    values[:, :2] = 0
    with rasterio.open(
        path, "w", driver="GTiff", height=SIDE, width=SIDE, count=5, dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), compress="deflate",
    ) as file:  # fmt: skip
        file.write(values)
        file.descriptions = ("B2", "B3", "B4", "B8", "B11")


def _read_geotiff(path: str) -> Iterator[tuple[str, Array]]:
    import rasterio

    with rasterio.open(path) as file:
        yield "", file.read().transpose(1, 2, 0)


def _write_fits(path: Path, label: int, rng: np.random.Generator) -> None:
    from astropy.io import fits  # type: ignore[import-untyped]

    unit = fits.PrimaryHDU(stripes(label, rng)[..., 0].astype(np.float32))
    unit.scale("int16", bzero=0.5, bscale=1 / 32768)
    unit.writeto(path)


def _read_fits(path: str) -> Iterator[tuple[str, Array]]:
    from astropy.io import fits

    yield "", np.asarray(fits.getdata(path))[::-1][..., None]


def _write_heif(path: Path, label: int, rng: np.random.Generator) -> None:
    import pillow_heif
    from PIL import Image

    pillow_heif.from_pillow(Image.fromarray(_rgb(label, rng))).save(path)


def _read_heif(path: str) -> Iterator[tuple[str, Array]]:
    import pillow_heif

    yield "", np.asarray(pillow_heif.open_heif(path))


def _write_picture(path: Path, label: int, rng: np.random.Generator) -> None:
    from PIL import Image

    if path.suffix == ".jxl":
        import pillow_jxl  # noqa: F401
    Image.fromarray(_rgb(label, rng)).save(path)


def _read_picture(path: str) -> Iterator[tuple[str, Array]]:
    from PIL import Image

    with Image.open(path) as image:
        yield "", np.asarray(image.convert("RGB"))


def _write_npy(path: Path, label: int, rng: np.random.Generator) -> None:
    np.save(path, np.rint(1000 * stripes(label, rng, channels=6)).astype(np.int16))


def _read_npy(path: str) -> Iterator[tuple[str, Array]]:
    yield "", np.load(path)


def _write_zarr(path: Path, label: int, rng: np.random.Generator) -> None:
    import zarr

    values = np.rint(1000 * stripes(label, rng, channels=4)).astype(np.uint16)
    options = {"shape": values.shape, "dtype": values.dtype, "chunks": (16, 16, 4)}
    made: Any = zarr.open(str(path), mode="w", **options)
    made[...] = values


def _read_zarr(path: str) -> Iterator[tuple[str, Array]]:
    import zarr

    opened: Any = zarr.open(path, mode="r")
    yield "", np.asarray(opened[...])


def _film(path: Path, codec: str, pixels: str | None, form: str, frames: list[Array]) -> None:
    import av

    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=4)
        stream.height, stream.width = frames[0].shape[:2]
        stream.bit_rate = 1_000_000
        if pixels is not None:
            stream.pix_fmt = pixels
        for values in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(values, format=form)))
        out.mux(stream.encode())


def _frames(path: str, form: str) -> Iterator[tuple[str, Array]]:
    import av

    with av.open(path) as film:
        for number, frame in enumerate(film.decode(video=0)):
            if number % 4 == 0:  # one a second
                yield f"frame={number}", frame.to_ndarray(format=form)


def _write_film(path: Path, label: int, rng: np.random.Generator) -> None:
    _film(path, "mpeg4", None, "rgb24", [_rgb(label, rng, 64) for _ in range(12)])


def _read_film(path: str) -> Iterator[tuple[str, Array]]:
    yield from _frames(path, "rgb24")


def _write_deep_film(path: Path, label: int, rng: np.random.Generator) -> None:
    frames = [np.rint(65535 * stripes(label, rng, 64, 3)).astype(np.uint16) for _ in range(12)]
    _film(path, "prores_ks", "yuv422p10le", "rgb48le", frames)


def _read_deep_film(path: str) -> Iterator[tuple[str, Array]]:
    yield from _frames(path, "rgb48le")


_ALL = ("data.channels=all",)
_RGB: tuple[str, ...] = ()
FORMATS = (
    Format("DICOM (pydicom)", "pydicom", ".dcm", _write_dicom, _read_dicom),
    Format("NIfTI (nibabel)", "nibabel", ".nii.gz", _write_nifti, _read_nifti, files=(3, 2)),
    Format("NIfTI pair (nibabel)", "nibabel", ".img", _write_pair, _read_nifti, files=(3, 2)),
    Format(
        "multi-page TIFF (tifffile)", "tifffile", ".tif", _write_pages, _read_pages,
        ("data.depth=native", "data.parts=page"), (3, 2),
    ),
    Format(
        "OME-TIFF (tifffile)", "tifffile", ".ome.tif", _write_ome, _read_ome,
        ("data.channels=[DAPI,TRITC]", "data.parts=z"), (6, 4),
    ),
    Format(
        "slide pyramid (tiffslide)", "tiffslide", ".svs", _write_slide, _read_slide,
        (f"data.tiles={SIDE}",), (2, 1),
    ),
    Format(
        "slide pyramid (OpenSlide)", "openslide", ".svs", _write_jpeg_slide, _read_by_openslide,
        (f"data.tiles={SIDE}",), (2, 1),
    ),
    Format("GeoTIFF (rasterio)", "rasterio", ".tif", _write_geotiff, _read_geotiff, _ALL),
    Format("FITS (astropy)", "astropy", ".fits", _write_fits, _read_fits),
    Format("HEIF (pillow-heif)", "pillow_heif", ".heic", _write_heif, _read_heif, _RGB),
    Format("AVIF (Pillow)", "PIL", ".avif", _write_picture, _read_picture, _RGB),
    Format(
        "JPEG XL (pillow-jxl-plugin)", "pillow_jxl", ".jxl", _write_picture, _read_picture, _RGB,
    ),
    Format("WebP (Pillow)", "PIL", ".webp", _write_picture, _read_picture, _RGB),
    Format("NPY (numpy)", "numpy", ".npy", _write_npy, _read_npy, _ALL),
    Format("Zarr (zarr)", "zarr", ".zarr", _write_zarr, _read_zarr, _ALL),
    Format("film (PyAV)", "av", ".mp4", _write_film, _read_film, _RGB, (4, 2)),
    Format("film of 10 bits (PyAV)", "av", ".mov", _write_deep_film, _read_deep_film,
           files=(4, 2)),
)  # fmt: skip
