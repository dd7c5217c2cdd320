"""The formats that are compared: a file of each, written and read by the format's own library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convit_ssl.data.listing.scenes import read_tile
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.readers import reads_by_path
from convit_ssl.data.reading.channel_reading import read_planes
from convit_ssl.data.reading.value_range import Reading

Array = npt.NDArray[Any]
SIDE = 512
_READING = Reading(depth="native")


@dataclass(frozen=True)
class Case:
    """One format.

    Attributes:
        name: of the format and its library.
        image: what is read.
        write: makes the file in a folder; gives the path that this project reads.
        read: the same by the library, as (H, W, C).
        ours: how this project reads it; `ours` by default.
    """

    name: str
    image: str
    write: Callable[[Path, Array], str]
    read: Callable[[str], Array]
    ours: Callable[[str], Array] | None = None


def ours(path: str) -> Array:
    """An image as this project reads it, before anything is scaled."""
    if "#tile=" in path:
        return read_tile(path, _READING).values
    data = None if reads_by_path(path, _READING) else read_bytes(path)
    return read_planes(path, data, _READING).values


def _file(path: str) -> str:
    return path.partition("#")[0]


def _write_tiff(folder: Path, values: Array) -> str:
    import tifffile

    tifffile.imwrite(folder / "a.tif", values, photometric="rgb", compression="zlib")
    return str(folder / "a.tif")


def _read_tiff(path: str) -> Array:
    import tifffile

    return np.asarray(tifffile.imread(path))


def _write_stack(folder: Path, values: Array) -> str:
    import tifffile

    planes = np.stack([values.transpose(2, 0, 1)] * 8)
    tifffile.imwrite(folder / "a.ome.tif", planes, metadata={"axes": "ZCYX"}, compression="zlib")
    return str(folder / "a.ome.tif") + "#z=5"


def _read_stack(path: str) -> Array:
    import tifffile

    with tifffile.TiffFile(_file(path)) as file:
        pages = [file.series[0].pages[5 * 4 + n].asarray() for n in range(4)]  # type: ignore[union-attr]
    return np.stack(pages, axis=-1)


def _write_geotiff(folder: Path, values: Array) -> str:
    import rasterio

    with rasterio.open(
        folder / "a.tif", "w", driver="GTiff", height=SIDE, width=SIDE, count=4, dtype="uint16",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), compress="deflate",
        tiled=True,
    ) as file:  # fmt: skip
        file.write(values.transpose(2, 0, 1))
    return str(folder / "a.tif")


def _read_geotiff(path: str) -> Array:
    import rasterio

    with rasterio.open(path) as file:
        return np.ascontiguousarray(file.read().transpose(1, 2, 0))


def _write_zarr(folder: Path, values: Array) -> str:
    import zarr

    made: Any = zarr.open(
        str(folder / "a.zarr"), mode="w", shape=values.shape, dtype=values.dtype,
        chunks=(256, 256, 4),
    )  # fmt: skip
    made[...] = values
    return str(folder / "a.zarr")


def _read_zarr(path: str) -> Array:
    import zarr

    opened: Any = zarr.open(path, mode="r")
    return np.asarray(opened[...])


def _write_slide(folder: Path, values: Array) -> str:
    import tifffile
    import tiffslide  # noqa: F401

    pixels = np.tile((values[..., :3] // 16).astype(np.uint8), (2, 2, 1))
    text = "Aperio Image Library v12\n1024x1024 |AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(folder / "a.svs") as file:
        file.write(
            pixels, description=text, tile=(256, 256), compression="jpeg", photometric="rgb",
            metadata=None,
        )  # fmt: skip
    return str(folder / "a.svs") + "#tile=256,x=300,y=300,scale=1"


_OPEN: dict[str, Any] = {}


def _read_slide(path: str) -> Array:
    import tiffslide

    file = _file(path)
    if file not in _OPEN:  # as slides are read: opened once
        _OPEN.clear()
        _OPEN[file] = tiffslide.TiffSlide(file)
    return np.asarray(_OPEN[file].read_region((300, 300), 0, (256, 256), as_array=True))[..., :3]


def _write_dicom(folder: Path, values: Array) -> str:
    import pydicom
    from pydicom.data import get_testdata_file

    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    data.Rows, data.Columns = SIDE, SIDE
    data.PixelData = values[..., 0].astype(np.int16).tobytes()
    data.save_as(folder / "a.dcm")
    return str(folder / "a.dcm")


def _read_dicom(path: str) -> Array:
    import pydicom
    from pydicom.pixels.processing import apply_rescale

    data = pydicom.dcmread(path)
    return np.asarray(apply_rescale(data.pixel_array, data))[..., None]


def _write_nifti(folder: Path, values: Array) -> str:
    import nibabel

    # Every slice differs, as in a scan: copies of one would be compressed to nothing.
    planes = [np.roll(values[: SIDE // 2, : SIDE // 2, 0], 7 * n, axis=0) for n in range(32)]
    kind: Any = nibabel.Nifti1Image
    nibabel.save(kind(np.stack(planes, axis=2).astype(np.int16), np.eye(4)), folder / "a.nii.gz")
    return str(folder / "a.nii.gz") + "#axial=16"


def _write_frames(folder: Path, values: Array) -> str:
    import pydicom

    data = pydicom.dcmread(_write_dicom(folder, values))
    data.NumberOfFrames = 20
    data.PixelData = values[..., 0].astype(np.int16).tobytes() * 20
    data.save_as(folder / "frames.dcm")
    return str(folder / "frames.dcm") + "#frame=7"


def _read_frame(path: str) -> Array:
    import pydicom
    from pydicom.pixels.processing import apply_rescale
    from pydicom.pixels.utils import pixel_array

    file = _file(path)
    header = pydicom.dcmread(file, stop_before_pixels=True)
    return np.asarray(apply_rescale(pixel_array(file, index=7), header))[..., None]


def _forget_volumes() -> None:
    from convit_ssl.data.readers.nifti import VOLUMES

    VOLUMES.clear()


def _our_slice(path: str) -> Array:
    _forget_volumes()
    return ours(path)


def _our_slices(path: str) -> Array:
    _forget_volumes()
    file = _file(path)
    return np.concatenate([ours(f"{file}#axial={n}") for n in range(32)], axis=-1)


def _read_slice(path: str) -> Array:
    import nibabel

    image: Any = nibabel.load(_file(path))
    return np.ascontiguousarray(np.rot90(image.dataobj[..., 16]))[..., None]


def _read_slices(path: str) -> Array:
    import nibabel

    image: Any = nibabel.load(_file(path))
    values = np.asanyarray(image.dataobj)
    planes = [np.ascontiguousarray(np.rot90(values[..., n])) for n in range(values.shape[2])]
    return np.stack(planes, axis=-1)


def _write_fits(folder: Path, values: Array) -> str:
    from astropy.io import fits

    fits.PrimaryHDU(values.transpose(2, 0, 1).astype(np.float32)).writeto(folder / "a.fits")
    return str(folder / "a.fits")


def _read_fits(path: str) -> Array:
    from astropy.io import fits

    values = np.asarray(fits.getdata(path))[:, ::-1]
    return np.ascontiguousarray(values.transpose(1, 2, 0).astype(np.float32))


def _write_heif(folder: Path, values: Array) -> str:
    import pillow_heif
    from PIL import Image

    pixels = (values[..., :3] // 16).astype(np.uint8)
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(folder / "a.heic")
    return str(folder / "a.heic")


def _read_heif(path: str) -> Array:
    import pillow_heif

    return np.array(pillow_heif.open_heif(path))


def _write_jxl(folder: Path, values: Array) -> str:
    import pillow_jxl  # noqa: F401

    return _write_pillow(folder, values, "a.jxl")


def _write_webp(folder: Path, values: Array) -> str:
    return _write_pillow(folder, values, "a.webp")


def _write_avif(folder: Path, values: Array) -> str:
    from PIL import features

    if not features.check("avif"):
        raise ImportError("this Pillow has no AVIF")
    return _write_pillow(folder, values, "a.avif")


def _write_pillow(folder: Path, values: Array, name: str) -> str:
    from PIL import Image

    Image.fromarray((values[..., :3] // 16).astype(np.uint8)).save(folder / name)
    return str(folder / name)


def _read_pillow(path: str) -> Array:
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def _write_npy(folder: Path, values: Array) -> str:
    np.save(folder / "a.npy", values)
    return str(folder / "a.npy")


def _read_npy(path: str) -> Array:
    return np.asarray(np.load(path))


def _write_film(folder: Path, values: Array) -> str:
    import av

    pixels = (values[..., :3] // 16).astype(np.uint8)
    with av.open(str(folder / "a.mp4"), "w") as out:
        stream: Any = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = SIDE
        stream.gop_size = 10
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels, 8 * number, axis=1), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return str(folder / "a.mp4") + "#frame=10"


def _read_film(path: str) -> Array:
    import av

    file = _file(path)
    if file not in _OPEN:
        _OPEN.clear()
        _OPEN[file] = av.open(file)
    container = _OPEN[file]
    stream = container.streams.video[0]
    container.seek(int(1 / stream.time_base), stream=stream)  # a key frame, one second in
    return np.asarray(next(container.decode(stream)).to_ndarray(format="rgb24"))


_FOUR = f"{SIDE} x {SIDE} x 4, 16 bits"
_RGB = f"{SIDE} x {SIDE} x 3, 8 bits"
CASES = (
    Case("TIFF, deflate (tifffile)", _FOUR, _write_tiff, _read_tiff),
    Case("OME-TIFF, one z of 8 (tifffile)", _FOUR, _write_stack, _read_stack),
    Case("GeoTIFF, deflate (rasterio)", _FOUR, _write_geotiff, _read_geotiff),
    Case("Zarr (zarr)", _FOUR, _write_zarr, _read_zarr),
    Case("slide, one tile (tiffslide)", "256 x 256 x 3, 8 bits", _write_slide, _read_slide),
    Case("DICOM (pydicom)", f"{SIDE} x {SIDE}, 16 bits", _write_dicom, _read_dicom),
    Case(
        "DICOM, one frame of 20 (pydicom)", f"{SIDE} x {SIDE}, 16 bits", _write_frames,
        _read_frame,
    ),
    Case(
        "NIfTI, one slice of a file (nibabel)", "256 x 256, 16 bits", _write_nifti, _read_slice,
        _our_slice,
    ),
    Case(
        "NIfTI, all 32 slices (nibabel)", "256 x 256 x 32, 16 bits", _write_nifti, _read_slices,
        _our_slices,
    ),
    Case("FITS (astropy)", f"{SIDE} x {SIDE} x 4, float32", _write_fits, _read_fits),
    Case("HEIC (pillow-heif)", _RGB, _write_heif, _read_heif),
    Case("JPEG XL (pillow-jxl-plugin)", _RGB, _write_jxl, _read_pillow),
    Case("WebP (Pillow)", _RGB, _write_webp, _read_pillow),
    Case("AVIF (Pillow)", _RGB, _write_avif, _read_pillow),
    Case("NPY (numpy)", _FOUR, _write_npy, _read_npy),
    Case("film, one frame (PyAV)", _RGB, _write_film, _read_film),
)  # fmt: skip
