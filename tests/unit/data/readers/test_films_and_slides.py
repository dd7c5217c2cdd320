"""Slides, films, JPEG XL, WebP and AVIF, against the libraries that wrote them; and tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from convit_ssl.data import open_dataset
from convit_ssl.data.listing.scenes import open_scene, read_tile
from convit_ssl.data.readers import READERS
from convit_ssl.data.reading.channel_reading import read_planes
from convit_ssl.data.reading.pixels import image_header
from convit_ssl.data.reading.value_range import Reading

NATIVE = Reading(depth="native")
RNG = np.random.default_rng(0)


def slide(path: Path) -> Any:
    """An Aperio slide of two levels: glass, and tissue in its lower right quarter."""
    pytest.importorskip("imagecodecs")
    pytest.importorskip("tiffslide")
    tifffile = pytest.importorskip("tifffile")
    full = np.full((512, 768, 3), 240, np.uint8)
    full[256:, 384:] = RNG.integers(90, 200, (256, 384, 1)) * np.array([1.0, 0.5, 0.9])
    text = "Aperio Image Library v12\n768x512 |AppMag = 20|MPP = 0.5"
    options: Any = {
        "tile": (128, 128),
        "compression": "zlib",
        "photometric": "rgb",
        "metadata": None,
    }
    with tifffile.TiffWriter(path) as file:
        file.write(full, description=text, **options)
        file.write(
            full[::8, ::8], description=text, photometric="rgb", metadata=None
        )  # Aperio's thumbnail
        file.write(full[::4, ::4], description=text, **options)
    return full


def test_tiles_of_a_slide_where_there_is_tissue(tmp_path: Path) -> None:
    full = slide(tmp_path / "a.svs")
    images = open_dataset("folder", tmp_path, reading=Reading(tiles=128))
    places = [file.partition("#")[2] for file in images.files]
    assert places == [
        f"tile=128,x={x},y={y},scale=1" for y in (256, 384) for x in (384, 512, 640)
    ]  # fmt: skip
    import tiffslide

    with tiffslide.TiffSlide(tmp_path / "a.svs") as opened:
        for position, (x, y) in enumerate((x, y) for y in (256, 384) for x in (384, 512, 640)):
            wanted = np.asarray(opened.read_region((x, y), 0, (128, 128)).convert("RGB"))
            assert np.array_equal(np.asarray(images[position][0]), wanted)
            assert np.array_equal(wanted, full[y : y + 128, x : x + 128])
    header = image_header(images.paths[0])
    assert (header.height, header.width, header.grey) == (128, 128, False)


def test_levels_and_pixel_size_of_a_slide(tmp_path: Path) -> None:
    full = slide(tmp_path / "a.svs")
    (path,) = open_dataset("folder", tmp_path, reading=Reading(parts="level:1")).paths
    planes = read_planes(path, None, NATIVE)
    assert np.array_equal(planes.values, full[::4, ::4])
    assert planes.spacing == pytest.approx((0.002, 0.002))
    lower = open_scene(str(tmp_path / "a.svs"), NATIVE).region(256, 256, 256, 128, 4.0)
    assert np.array_equal(lower.values, full[::4, ::4][64:96, 64:128])
    assert lower.spacing == pytest.approx((0.002, 0.002))


def test_a_slide_is_read_in_tiles_unasked(tmp_path: Path) -> None:
    slide(tmp_path / "a.svs")
    images = open_dataset("folder", tmp_path)
    assert [file.partition("#")[2] for file in images.files] == [
        "tile=256,x=256,y=256,scale=1", "tile=256,x=512,y=256,scale=1"
    ]  # fmt: skip


def test_a_broken_slide_is_one_message(tmp_path: Path) -> None:
    slide(tmp_path / "a.svs")
    content = (tmp_path / "a.svs").read_bytes()
    (tmp_path / "b.svs").write_bytes(content[:100])
    images = open_dataset("folder", tmp_path, max_corrupt=1.0, replace=False)
    assert [images[n][2] for n in range(len(images))] == [0, 1, -1]
    (tmp_path / "c.svs").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged or cut off"):
        open_scene(str(tmp_path / "c.svs"), Reading()).interest()


@pytest.mark.parametrize("name", ["svs", "jxl", "zarr", "mp4"])
def test_without_its_extra_a_file_is_counted_and_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from convit_ssl.data import readers

    monkeypatch.setattr(readers, "_is_importable", lambda each: each == "numpy")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    if name == "zarr":
        (tmp_path / "b.zarr").mkdir()
        (tmp_path / "b.zarr" / ".zarray").write_text("{}")
    else:
        (tmp_path / f"b.{name}").write_bytes(b"0" * 100)
    assert len(open_dataset("folder", tmp_path)) == 1
    extra = next(r.extra for r in READERS.values() if f".{name}" in r.suffixes)
    assert f"1 .{name} file" in caplog.text
    assert f"pip install 'convit_ssl[{extra}]'" in caplog.text


@pytest.mark.parametrize("kind", ["jxl", "webp", "avif"])
def test_photographs_of_new_formats(tmp_path: Path, kind: str) -> None:
    if kind == "jxl":
        pytest.importorskip("pillow_jxl")
    elif not features.check(kind):
        pytest.skip(f"this Pillow reads no {kind}")
    pixels = RNG.integers(0, 255, (24, 32, 3)).astype(np.uint8)
    path = tmp_path / f"a.{kind}"
    Image.fromarray(pixels).save(
        path, **({"quality": 90} if kind == "avif" else {"lossless": True})
    )
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert kind == "avif" or np.array_equal(expected, pixels)
    image = open_dataset("folder", tmp_path)[0][0]
    assert np.array_equal(np.asarray(image), expected)
    native = open_dataset("folder", tmp_path, reading=NATIVE)[0][0]
    assert np.array_equal(np.rint(native * 255), expected)
    path.write_bytes(path.read_bytes()[:40])
    images = open_dataset("folder", tmp_path, max_corrupt=1.0, replace=False)
    assert images[0][2] == -1


def film(path: Path, frames: int = 30, pixels: str = "yuv420p", codec: str = "mpeg4") -> list[Any]:
    """A film of 10 frames a second, and what PyAV decodes of it."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, pixels
        stream.gop_size = 7
        for number in range(frames):
            grey = np.full((24, 32, 3), 8 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        out.mux(stream.encode())
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_frames_of_a_film(tmp_path: Path, name: str) -> None:
    expected = film(tmp_path / name)
    assert len(open_dataset("folder", tmp_path)) == 3  # one a second
    for parts, places in (("frame:7", range(0, 30, 7)), ("second:0.5", range(0, 30, 5))):
        images = open_dataset("folder", tmp_path, reading=Reading(parts=parts))
        assert [file.partition("=")[2] for file in images.files] == [str(p) for p in places]
        for position, place in reversed(list(enumerate(places))):
            assert np.array_equal(np.asarray(images[position][0]), expected[place])
    assert image_header(images.paths[0]).width == 32


@pytest.mark.parametrize(
    ("pixels", "suffix", "levels"),
    [("yuv420p10le", "mkv", 600), ("gbrp12le", "mkv", 700), ("gray10le", "mkv", 400),
     ("yuv420p10le", "mp4", 300), ("yuv420p", "mkv", 100)],
)  # fmt: skip
def test_films_of_more_than_8_bits_keep_them_in_native_depth(
    tmp_path: Path, pixels: str, suffix: str, levels: int
) -> None:
    av = pytest.importorskip("av")
    ramp = np.linspace(0, 65535, 768).reshape(24, 32).astype(np.uint16)
    rgb = np.stack([ramp, ramp[::-1], 65535 - ramp], axis=-1)
    path = tmp_path / f"a.{suffix}"
    codec = "ffv1" if suffix == "mkv" else "libx264"
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 24, pixels
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb48le")))
        out.mux(stream.encode())
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
        grey = frame.format.name.startswith("gray")
        kept = frame.format.name if grey else "rgb24" if pixels == "yuv420p" else "rgb48le"
        expected = frame.to_ndarray(format=kept)
        eight = frame.to_ndarray(format="rgb24")
    native = read_planes(f"{path}#frame=0", None, NATIVE)
    assert native.values.dtype == expected.dtype
    assert np.array_equal(np.squeeze(native.values), expected)
    assert len(np.unique(native.values)) > levels
    if not grey:
        usual = read_planes(f"{path}#frame=0", None, Reading())
        assert np.array_equal(usual.values, eight)


def test_a_film_beside_pictures_and_a_broken_one(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:200])
    images = open_dataset("folder", tmp_path, max_corrupt=1.0, replace=False)
    assert [images[n][2] for n in range(len(images))] == [0, 1, 2, -1]
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert list(open_dataset("folder", tmp_path).files) == ["a.png"]


def test_a_film_that_is_cut_off_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    film(tmp_path / "a.mkv")
    assert len(open_dataset("folder", tmp_path)) == 3 and "cut off" not in caplog.text
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[: len(whole) // 2])
    assert 3 < len(open_dataset("folder", tmp_path)) < 6
    assert "b.mkv has frames for" in caplog.text and "of the 3.0 s" in caplog.text


class Seeded:
    """What a training transform is to a data set."""

    seeded = True
    reads_arrays = True

    def __call__(self, image: Any, seed: int) -> Any:
        return image


@pytest.mark.parametrize("native", [False, True])
def test_tiles_of_a_photograph(tmp_path: Path, native: bool) -> None:
    pixels = RNG.integers(0, 255, (100, 130, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    reading = Reading(tiles=64, depth="native" if native else "8bit")
    images = open_dataset("folder", tmp_path, reading=reading)
    boxes = [(x, y) for y in (0, 36) for x in (0, 64, 66)]
    assert len(images) == 6
    for position, (x, y) in enumerate(boxes):
        found = np.asarray(images[position][0]) * (255 if native else 1)
        assert np.array_equal(np.rint(found), pixels[y : y + 64, x : x + 64])


def test_tiles_are_drawn_anew_each_epoch_and_the_same_when_resumed(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:100, 0:130]
    pixels = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    reading = Reading(tiles=32, tile_scales=(1, 2))
    images = open_dataset("folder", tmp_path, "train", Seeded(), seed=3, reading=reading)
    again = open_dataset("folder", tmp_path, "train", Seeded(), seed=3, reading=reading)
    seen = set()
    for epoch in range(4):
        images.set_epoch(epoch)
        again.set_epoch(epoch)
        for position in (5, 0, 7):
            tile = images[position][0]
            assert tile.shape == (32, 32, 3)
            assert np.array_equal(tile, again[position][0])
            seen.add((int(tile[0, 0, 0]), int(tile[0, 0, 1]), int(tile[-1, 0, 0])))
    assert len(seen) > 9
    steps = {last - top for top, _, last in seen}
    assert steps == {31, 62}  # both scales


def test_turned_tiles_show_the_middle(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:200, 0:200]
    pixels = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    path = f"{tmp_path}/a.png#tile=64,x=60,y=70,scale=1"
    plain = read_tile(path, Reading()).values.astype(int)
    quarter = read_tile(f"{path},turn=90", Reading()).values.astype(int)
    assert np.abs(quarter - np.rot90(plain)).max() <= 1
    some = read_tile(f"{path},turn=33", Reading()).values.astype(int)
    assert np.abs(some[31:33, 31:33].mean((0, 1)) - plain[31:33, 31:33].mean((0, 1))).max() <= 1


def test_tiles_of_a_scene_stay_on_one_side_of_a_split(tmp_path: Path) -> None:
    from convit_ssl.data.listing.division import DivisionSpec

    for number in range(6):
        Image.new("RGB", (96, 96), (number, 0, 0)).save(tmp_path / f"{number}.png")
    spec = DivisionSpec(holdout=0.34, unlabelled=True)
    sides = [
        open_dataset("folder", tmp_path, part, reading=Reading(tiles=32), division=spec)
        for part in ("train", "val")
    ]
    scenes = [{file.partition("#")[0] for file in side.files} for side in sides]
    assert [len(side) for side in sides] == [36, 18] and not scenes[0] & scenes[1]


@pytest.mark.parametrize("native", [False, True])
def test_crops_of_one_physical_size(tmp_path: Path, native: bool) -> None:
    tifffile = pytest.importorskip("tifffile")
    rows, columns = np.mgrid[0:60, 0:80].astype(np.uint8)
    for name, size in (("fine", 0.5), ("coarse", 2.0)):
        metadata = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size}
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", rows + columns, metadata=metadata)
    depth = "native" if native else "8bit"
    reading = Reading(depth=depth, physical=0.02)  # 20 micrometres
    images = open_dataset("folder", tmp_path, reading=reading)
    shapes = [np.asarray(images[n][0]).shape[:2] for n in range(2)]
    assert shapes == [(10, 10), (40, 40)]  # coarse, fine
    middle = np.asarray(images[0][0])[..., 0] * (255 if native else 1)
    assert np.array_equal(np.rint(middle), (rows + columns)[25:35, 35:45])
    assert images.native_size() == (25, 25)
    trained = open_dataset("folder", tmp_path, "train", Seeded(), seed=1, reading=reading)
    corners = set()
    for epoch in range(5):
        trained.set_epoch(epoch)
        assert trained[1][0].shape[:2] == (40, 40)
        assert np.array_equal(trained[1][0], trained[1][0])
        corners.add(float(trained[1][0][0, 0, 0]))
    assert len(corners) > 3


def test_a_pixel_size_that_nobody_gives(tmp_path: Path) -> None:
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    lenient: Any = {"max_corrupt": 1.0, "replace": False}
    images = open_dataset("folder", tmp_path, reading=Reading(physical=0.02), **lenient)
    assert images[0][2] == -1
    assert "data.pixel_size" in next(iter(images.reader.fault_log.read().values()))
    given = Reading(physical=0.02, pixel_size=0.001)
    assert open_dataset("folder", tmp_path, reading=given)[0][0].size == (20, 20)


def test_slides_are_read_as_openslide_reads_them(tmp_path: Path) -> None:
    for needed in ("openslide", "tiffslide", "tifffile", "imagecodecs"):
        pytest.importorskip(needed)
    from tests.integration.openslide_files import compare_openslide

    found = compare_openslide(tmp_path)
    assert (found["files"], found["images"], found["other"]) == (3, 27, [])


def test_a_pyramid_of_jpeg_tiles_is_read_by_level(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    from tests.integration.openslide_files import write_slides

    path = next(path for path in write_slides(tmp_path) if path.name == "generic_jpeg.tif")
    scene = open_scene(str(path), NATIVE)
    assert scene.downsamples == [1.0, 2.0, 4.0]
    for level in range(3):
        whole = tifffile.imread(path, level=level)
        part = scene.at_level(level, 64, 32, 100, 90).values
        assert np.array_equal(part, whole[32:122, 64:164])
