"""Stacks, pyramids, Zarr and GeoTIFF, against the libraries that wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit_ssl.data import open_dataset
from convit_ssl.data.listing.scenes import open_scene
from convit_ssl.data.reading.channel_reading import read_channels, read_planes
from convit_ssl.data.reading.pixels import image_header, read_raw
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import RawImage
from convit_ssl.data.reading.tiff import read_tiff_planes
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError

NATIVE = Reading(depth="native")
RNG = np.random.default_rng(0)


def native(**options: Any) -> Reading:
    return Reading(depth="native", **options)


def stack(path: Path, **options: Any) -> Any:
    """(t, z, c, y, x) of uint16, as OME-TIFF or, with ``imagej=True``, as ImageJ writes it."""
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(0, 4000, (2, 3, 4, 20, 30)).astype(np.uint16)
    ours = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "Channel": {"Name": list("abcd")}}
    metadata = {"axes": "TZCYX"} | ({} if options else ours)
    tifffile.imwrite(path, values, metadata=metadata, **options)
    return values


def read(path: str, reading: Reading = NATIVE) -> Planes:
    header = image_header(path)
    planes = read_planes(path, None, reading)
    assert planes.values.shape[:2] == (header.height, header.width)
    return planes


@pytest.mark.parametrize("kind", [{}, {"imagej": True}, {"imagej": True, "byteorder": ">"}])
def test_planes_of_a_stack_are_images(tmp_path: Path, kind: dict[str, Any]) -> None:
    values = stack(tmp_path / ("a.tif" if kind else "a.ome.tif"), **kind)
    images = open_dataset("folder", tmp_path, reading=native(parts="all"))
    assert len(images) == 6
    found = [read(path).values for path in images.paths]
    expected = [values[t, z].transpose(1, 2, 0) for t in range(2) for z in range(3)]
    assert sorted(map(bytes, found)) == sorted(map(bytes, map(np.ascontiguousarray, expected)))
    assert np.array_equal(read(f"{images.paths[0].split('#')[0]}#t=1,z=2").values, expected[5])


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ("z", ["z=0", "z=1", "z=2"]),
        ("z:2,t", ["t=0,z=0", "t=0,z=2", "t=1,z=0", "t=1,z=2"]),
        ("t,z:channels", ["t=0,z=channels", "t=1,z=channels"]),
        ("first", [""]),
        ("", [""]),
    ],
)
def test_which_planes(tmp_path: Path, parts: str, names: list[str]) -> None:
    stack(tmp_path / "a.ome.tif")
    images = open_dataset("folder", tmp_path, reading=native(parts=parts))
    assert [file.partition("#")[2] for file in images.files] == names


def test_planes_along_z_as_channels(tmp_path: Path) -> None:
    values = stack(tmp_path / "a.ome.tif")
    planes = read(f"{tmp_path}/a.ome.tif#t=1,z=channels")
    assert np.array_equal(planes.values, values[1].reshape(12, 20, 30).transpose(1, 2, 0))
    one = read(f"{tmp_path}/a.ome.tif#z=1")
    assert one.names == ("a", "b", "c", "d")
    assert one.spacing == pytest.approx((0.0005, 0.00025))


def test_an_axis_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("tifffile").imwrite(tmp_path / "a.tif", np.zeros((5, 8, 9), np.uint16))
    assert len(open_dataset("folder", tmp_path, reading=native(parts="page:2"))) == 3
    with pytest.raises(UserError, match=r"no axis 'z'; it has page=5"):
        open_dataset("folder", tmp_path, reading=native(parts="z"))
    with pytest.raises(UserError, match="for stacks, give all, z"):
        open_dataset("folder", tmp_path, reading=native(parts="axial"))


def pyramid(path: Path) -> Any:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    values = RNG.integers(0, 4000, (3, 200, 150)).astype(np.uint16)
    options: Any = {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack"}
    with tifffile.TiffWriter(path) as file:
        file.write(values, subifds=1, metadata={"axes": "CYX"}, **options)
        file.write(values[:, ::2, ::2], subfiletype=1, **options)
    return values


def test_levels_of_a_pyramid(tmp_path: Path) -> None:
    values = pyramid(tmp_path / "a.ome.tif")
    (path,) = open_dataset("folder", tmp_path, reading=native(parts="level:1")).paths
    assert np.array_equal(read(path).values, values[:, ::2, ::2].transpose(1, 2, 0))


@pytest.mark.parametrize("box", [(0, 0, 150, 200), (10, 70, 100, 90), (149, 199, 1, 1)])
def test_rectangles_are_those_of_the_whole(tmp_path: Path, box: tuple[int, ...]) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = pyramid(tmp_path / "a.ome.tif").transpose(1, 2, 0)
    for name, options in (
        ("strips.tif", {"rowsperstrip": 7, "compression": "lzw", "predictor": True}),
        ("plain.tif", {}),
        ("planes.tif", {"planarconfig": "separate", "tile": (32, 48)}),
    ):
        stored = values if name != "planes.tif" else values.transpose(2, 0, 1)
        tifffile.imwrite(tmp_path / name, stored, photometric="rgb", **options)
    x, y, width, height = box
    for path in sorted(tmp_path.iterdir()):
        region = open_scene(str(path), NATIVE).region(x, y, width, height)
        assert np.array_equal(region.values, values[y : y + height, x : x + width]), path
    half = open_scene(str(tmp_path / "a.ome.tif"), NATIVE).region(20, 40, 60, 80, 2.0)
    assert np.array_equal(half.values, values[::2, ::2][20:60, 10:40])


def test_a_broken_stack_is_one_message(tmp_path: Path) -> None:
    stack(tmp_path / "a.ome.tif")
    content = (tmp_path / "a.ome.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(content[: len(content) // 2])
    images = open_dataset(
        "folder", tmp_path, reading=native(parts="all"), max_corrupt=1.0, replace=False
    )
    bad = [n for n in range(len(images)) if images[n][2] == -1]
    assert bad and all("b.tif" in images.files[n] for n in bad)
    assert all("\n" not in why for why in images.reader.fault_log.read().values())


@pytest.fixture
def zarr() -> Any:
    return pytest.importorskip("zarr")


def array(zarr: Any, path: Path, values: Any, **options: Any) -> Any:
    made = zarr.open(
        str(path), mode="w", shape=values.shape, dtype=values.dtype, chunks=values.shape, **options
    )
    made[...] = values
    return made


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("shape", [(20, 30), (4, 20, 30), (20, 30, 4)])
def test_zarr_arrays(tmp_path: Path, zarr: Any, shape: tuple[int, ...], version: int) -> None:
    if version == 3 and zarr.__version__.startswith("2"):
        pytest.skip("zarr 2")
    values = RNG.normal(size=shape).astype(np.float32)
    (tmp_path / "a").mkdir()
    options = {} if zarr.__version__.startswith("2") else {"zarr_format": version}
    array(zarr, tmp_path / "a" / "x.zarr", values, **options)
    images = open_dataset("folder", tmp_path, reading=NATIVE)
    assert list(images.files) == ["a/x.zarr"] and images.classes == ["a"]
    expected = values[..., None] if len(shape) == 2 else values
    expected = np.moveaxis(expected, 0, -1) if shape[0] == 4 else expected
    assert np.array_equal(read(images.paths[0]).values, expected)


def test_images_along_the_first_of_four_axes(tmp_path: Path, zarr: Any) -> None:
    values = RNG.integers(0, 255, (5, 20, 30, 3)).astype(np.uint8)
    array(zarr, tmp_path / "x.zarr", values)
    images = open_dataset("folder", tmp_path)
    assert len(images) == 5
    assert np.array_equal(np.asarray(images[3][0]), values[3])


def test_ome_zarr(tmp_path: Path, zarr: Any) -> None:
    values = RNG.integers(0, 4000, (2, 3, 4, 20, 30)).astype(np.uint16)
    group = zarr.open_group(str(tmp_path / "x.ome.zarr"), mode="w")
    axes: list[dict[str, str]] = [{"name": "t"}, {"name": "c"}, {"name": "z"}]
    axes += [{"name": name, "unit": "micrometer"} for name in "yx"]
    levels = []
    for number, step in enumerate((1, 2)):
        array(zarr, tmp_path / "x.ome.zarr" / str(number), values[..., ::step, ::step])
        scale = {"type": "scale", "scale": [1, 1, 1, 0.5 * step, 0.25 * step]}
        levels.append({"path": str(number), "coordinateTransformations": [scale]})
    group.attrs["multiscales"] = [{"axes": axes, "datasets": levels}]
    group.attrs["omero"] = {"channels": [{"label": name} for name in ("dapi", "gfp", "rfp")]}
    images = open_dataset("folder", tmp_path, reading=native(parts="t,z:2"))
    assert [file.partition("#")[2] for file in images.files] == [
        "t=0,z=0", "t=0,z=2", "t=1,z=0", "t=1,z=2"
    ]  # fmt: skip
    planes = read(images.paths[3])
    assert np.array_equal(planes.values, values[1, :, 2].transpose(1, 2, 0))
    assert planes.names == ("dapi", "gfp", "rfp")
    assert planes.spacing == pytest.approx((0.0005, 0.00025))
    lower = read(f"{tmp_path}/x.ome.zarr#t=1,z=2,level=1")
    assert np.array_equal(lower.values, values[1, :, 2, ::2, ::2].transpose(1, 2, 0))


def test_each_array_of_a_zarr_group_is_an_image(tmp_path: Path, zarr: Any) -> None:
    values = RNG.integers(0, 4000, (3, 12, 16)).astype(np.uint16)
    for name, plane in zip(("a", "b", "deep/c"), values, strict=True):
        array(zarr, tmp_path / "g.zarr" / name, plane)
    zarr.open_group(str(tmp_path / "g.zarr"), mode="a")
    zarr.open_group(str(tmp_path / "g.zarr" / "deep"), mode="a")
    images = open_dataset("folder", tmp_path, reading=NATIVE)
    assert [file.partition("#")[2] for file in images.files] == ["array=0", "array=1", "array=2"]
    for path, plane in zip(images.paths, values, strict=True):
        assert np.array_equal(read(path).values[..., 0], plane)
    with pytest.raises(UserError, match="each of which is an image"):
        open_dataset("folder", tmp_path, reading=native(parts="z"))


def test_a_broken_zarr_is_one_message(tmp_path: Path, zarr: Any) -> None:
    array(zarr, tmp_path / "a.zarr", np.zeros((8, 8), np.uint8))
    array(zarr, tmp_path / "b.zarr", np.zeros((8, 8), np.uint8))
    for file in (tmp_path / "b.zarr").iterdir():
        if file.is_file():
            file.write_text("{")
    images = open_dataset("folder", tmp_path, reading=NATIVE, max_corrupt=1.0, replace=False)
    assert [images[n][2] for n in range(2)] == [0, -1]


@pytest.fixture
def rasterio() -> Any:
    return pytest.importorskip("rasterio")


def geotiff(rasterio: Any, path: Path, values: Any, **options: Any) -> None:
    """(bands, y, x) with pixels of 10 m."""
    place = rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=values.dtype,
        crs="EPSG:32633", transform=place, **options,
    ) as file:  # fmt: skip
        file.write(values)
        file.descriptions = [f"B{n}" for n in range(2, 2 + count)]


def test_bands_of_a_geotiff(tmp_path: Path, rasterio: Any) -> None:
    values = RNG.integers(1, 4000, (5, 40, 60)).astype(np.uint16)
    values[:, :7] = 0
    geotiff(rasterio, tmp_path / "a.tif", values, nodata=0, tiled=True, blockxsize=16,
            blockysize=16, compress="deflate")  # fmt: skip
    path = tmp_path / "a.tif"
    planes = read_planes(str(path), path.read_bytes(), NATIVE)
    with rasterio.open(path) as file:
        assert np.array_equal(planes.values, file.read().transpose(1, 2, 0))
        assert np.array_equal(planes.valid, file.dataset_mask() != 0)
    assert planes.names == ("B2", "B3", "B4", "B5", "B6")
    assert planes.spacing == pytest.approx((10_000, 10_000))
    image = open_dataset("folder", tmp_path, reading=native(channels=("B6", "B2")))[0][0]
    assert image.shape == (40, 60, 2) and not image[:7].any() and image[7:].all()


def test_windows_of_a_geotiff(tmp_path: Path, rasterio: Any) -> None:
    values = RNG.normal(size=(2, 64, 96)).astype(np.float32)
    geotiff(rasterio, tmp_path / "a.tif", values, nodata=-9999)
    region = open_scene(str(tmp_path / "a.tif"), NATIVE).region(10, 20, 30, 40)
    assert np.array_equal(region.values, values[:, 20:60, 10:40].transpose(1, 2, 0))
    half = open_scene(str(tmp_path / "a.tif"), NATIVE).region(0, 0, 96, 64, 2)
    means = values.reshape(2, 32, 2, 48, 2).mean(axis=(2, 4))
    assert half.values == pytest.approx(means.transpose(1, 2, 0), abs=1e-5)
    assert half.spacing == pytest.approx((20_000, 20_000))


@pytest.mark.parametrize("dtype", ["int16", "uint8", "int32", "float32"])
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_scale_and_offset_of_a_geotiff(
    tmp_path: Path, rasterio: Any, dtype: str, bands: int
) -> None:
    values = RNG.integers(1, 250, (bands, 20, 30)).astype(dtype)
    path = tmp_path / "a.tif"
    geotiff(rasterio, path, values, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.scales = [0.1 * (n + 1) for n in range(bands)]
        file.offsets = [-3.0 + n for n in range(bands)]
    with rasterio.open(path) as file:
        expected = np.stack(
            [file.read(n) * file.scales[n - 1] + file.offsets[n - 1] for n in file.indexes], -1
        )
    data = path.read_bytes()
    read = [
        read_planes(str(path), data, NATIVE),
        open_scene(str(path), NATIVE).region(0, 0, 30, 20),
    ]
    by_tifffile = read_tiff_planes(data, 10_000)
    assert by_tifffile is not None
    for planes in (*read, by_tifffile):
        assert planes.values.dtype == ("float64" if dtype == "int32" else "float32")
        assert planes.values == pytest.approx(expected, rel=1e-6, abs=1e-5)
    assert image_header(str(path)).kind == "float"
    if bands == 3 and dtype == "uint8":  # a colour picture
        assert raw_of(data).values == pytest.approx(expected, rel=1e-6, abs=1e-5)


def raw_of(data: bytes) -> RawImage:
    raw = read_raw(data)
    assert raw is not None
    return raw


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_no_data_in_one_band_alone(tmp_path: Path, rasterio: Any, dtype: str) -> None:
    values = RNG.integers(1, 4000, (4, 20, 30)).astype(dtype)
    values[2, :5] = -9999
    path = tmp_path / "a.tif"
    geotiff(rasterio, path, values, nodata=-9999)
    data = path.read_bytes()
    with rasterio.open(path) as file:
        expected = np.moveaxis(file.read_masks(), 0, -1) != 0
    scene = open_scene(str(path), NATIVE)
    by_tifffile = read_tiff_planes(data, 10_000)
    assert by_tifffile is not None
    for planes in (read_planes(str(path), data, NATIVE), scene.region(0, 0, 30, 20), by_tifffile):
        assert np.array_equal(planes.valid, expected)
    assert scene.interest().all()
    reading = native(channels=(3, 1), channel_ranges=((0.0, 4000.0), (0.0, 4000.0)))
    read = read_channels(str(path), data, reading)
    assert not read[:5, :, 0].any() and (read[5:, :, 0] > 0).all() and (read[..., 1] > 0).all()


def test_a_mask_beside_a_geotiff_counts(tmp_path: Path, rasterio: Any) -> None:
    path = tmp_path / "a.tif"
    geotiff(rasterio, path, RNG.integers(1, 200, (4, 20, 30)).astype(np.uint16))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(np.arange(600).reshape(20, 30) > 300)
    assert path.with_name("a.tif.msk").exists()
    planes = read_planes(str(path), path.read_bytes(), NATIVE)
    assert np.array_equal(planes.valid, np.arange(600).reshape(20, 30) > 300)


def test_white_as_no_data_leaves_bright_colours_alone(tmp_path: Path, rasterio: Any) -> None:
    values = np.full((3, 8, 8), 255, np.uint8)
    values[1:, :4] = 10  # a bright red
    path = tmp_path / "a.tif"
    geotiff(rasterio, path, values, nodata=255, photometric="rgb")
    expected = np.repeat(np.arange(8)[:, None] < 4, 8, axis=1)
    raw = raw_of(path.read_bytes())
    assert np.array_equal(raw.valid, expected)
    assert np.array_equal(read_planes(str(path), path.read_bytes(), NATIVE).valid, expected)


def test_a_broken_geotiff_is_one_message(tmp_path: Path, rasterio: Any) -> None:
    values = RNG.integers(1, 4000, (5, 40, 60)).astype(np.uint16)
    geotiff(rasterio, tmp_path / "a.tif", values)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(content[: len(content) // 2])
    images = open_dataset("folder", tmp_path, reading=NATIVE, max_corrupt=1.0, replace=False)
    assert [images[n][2] for n in range(2)] == [0, -1]
    assert len(images.reader.fault_log.read()) == 1
