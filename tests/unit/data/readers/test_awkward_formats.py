"""Valid files of uncommon kinds, read to the numbers that were written, or as the library reads."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit_ssl.data.readers import reads_by_path
from convit_ssl.data.reading.channel_reading import read_channels, read_planes
from convit_ssl.data.reading.value_range import Reading

RNG = np.random.default_rng(0)
NATIVE = Reading(depth="native")
Array = np.ndarray[Any, Any]


def sharded_zarr(folder: Path) -> tuple[str, Array]:
    zarr = pytest.importorskip("zarr", minversion="3")
    values = RNG.integers(0, 4000, (3, 64, 64)).astype(np.uint16)
    path = str(folder / "a.zarr")
    made = zarr.create_array(
        path, shape=values.shape, dtype=values.dtype, chunks=(1, 16, 16), shards=(3, 64, 64)
    )
    made[...] = values
    return path, values.transpose(1, 2, 0)


def zarr_with_chunks_left_out(folder: Path) -> tuple[str, Array]:
    zarr = pytest.importorskip("zarr", minversion="3")
    path = str(folder / "a.zarr")
    made = zarr.create_array(path, shape=(20, 30), dtype="uint16", chunks=(10, 10), fill_value=7)
    made[:10] = 3
    return path, np.repeat([3, 7], 10)[:, None, None] * np.ones((1, 30, 1), np.uint16)


def columns_first_big_endian(folder: Path) -> tuple[str, Array]:
    values = np.asfortranarray(RNG.integers(0, 4000, (20, 30, 5)).astype(">u2"))
    np.save(folder / "a.npy", values)
    return str(folder / "a.npy"), values


def deflated_dicom(folder: Path) -> tuple[str, Array]:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(folder / "a.dcm")
    expected = pydicom.pixels.apply_rescale(data.pixel_array, data)
    return str(folder / "a.dcm"), expected[..., None]


def geotiff_without_numbers(folder: Path) -> tuple[str, Array]:
    rasterio = pytest.importorskip("rasterio")
    values = RNG.normal(size=(2, 20, 30)).astype(np.float32)
    values[:, :5] = np.nan
    with rasterio.open(
        folder / "a.tif", "w", driver="GTiff", height=20, width=30, count=2, dtype="float32",
        nodata=np.nan, crs="EPSG:4326", transform=rasterio.Affine(0.1, 0, 5, 0, -0.1, 50),
    ) as file:  # fmt: skip
        file.write(values)
        file.scales, file.offsets = (2.0, 2.0), (1.0, 1.0)
    return str(folder / "a.tif"), 2 * values.transpose(1, 2, 0) + 1


def fits_with_blanks(folder: Path) -> tuple[str, Array]:
    fits = pytest.importorskip("astropy.io.fits")
    values = RNG.integers(0, 1000, (20, 30)).astype(np.int16)
    values[:3] = -32768
    unit = fits.PrimaryHDU(values)
    unit.header["BLANK"] = -32768
    unit.writeto(folder / "a.fits")
    expected = np.asarray(fits.getdata(folder / "a.fits"))
    assert np.isnan(expected[:3]).all()
    return str(folder / "a.fits"), expected[::-1][..., None]


def ome_of_colours(folder: Path) -> tuple[str, Array]:
    """Two channels of three samples each: six channels."""
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(0, 4000, (2, 20, 30, 3)).astype(np.uint16)
    path = folder / "a.ome.tif"
    tifffile.imwrite(path, values, photometric="rgb", metadata={"axes": "CYXS"})
    return str(path), values.transpose(1, 2, 0, 3).reshape(20, 30, 6)


def tiff_with_a_predictor(folder: Path) -> tuple[str, Array]:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    values = RNG.normal(size=(20, 30)).astype(np.float32)
    tifffile.imwrite(folder / "a.tif", values, compression="zlib", predictor=True)
    return str(folder / "a.tif"), values[..., None]


def film_of_uneven_pace(folder: Path) -> tuple[str, Array]:
    av = pytest.importorskip("av")
    frames = RNG.integers(0, 255, (6, 32, 32)).astype(np.uint8)
    with av.open(str(folder / "a.mkv"), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "gray"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="gray")
            frame.pts, frame.time_base = number * number, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return str(folder / "a.mkv") + "#frame=4", frames[4][..., None]


@pytest.mark.parametrize(
    "write",
    [
        sharded_zarr, zarr_with_chunks_left_out, columns_first_big_endian, deflated_dicom,
        geotiff_without_numbers, fits_with_blanks, ome_of_colours, tiff_with_a_predictor,
        film_of_uneven_pace,
    ],
    ids=lambda write: write.__name__,
)  # fmt: skip
def test_uncommon_files(tmp_path: Path, write: Callable[[Path], tuple[str, Array]]) -> None:
    path, expected = write(tmp_path)
    data = None if reads_by_path(path, NATIVE) else Path(path).read_bytes()
    values = read_planes(path, data, NATIVE).values
    assert np.array_equal(values, expected, equal_nan=expected.dtype.kind == "f")
    assert np.isfinite(read_channels(path, data, Reading(depth="native", channels="all"))).all()
