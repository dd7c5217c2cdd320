"""Thin, huge, oblong and turned images: nothing lost that counts, nothing made that does not."""

from __future__ import annotations

import io
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from convit_ssl.analysis.attention import image_attention
from convit_ssl.analysis.attention_figure import attention_figure
from convit_ssl.analysis.images import bounded, open_image, prepare_image, thumbnail
from convit_ssl.data import evaluation_transform
from convit_ssl.data.augment.parameters import draw_crop
from convit_ssl.data.augment.spec import CropConfig
from convit_ssl.data.reading import eight_bits, raw_image
from convit_ssl.data.reading.pixels import decode_array, decode_image
from convit_ssl.data.reading.raw_image import RawImage
from convit_ssl.data.reading.rendering import to_rgb
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.data.reading.viewing import view_image
from convit_ssl.models import create_model
from tests.unit.data.make_images import tiff

STRIPS = [(1, 2000), (2000, 1), (3, 900)]


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (64, 64), (2000, 1)])
def test_a_small_crop_shows_all_sides_of_an_oblong_image(size: tuple[int, int]) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : max(1, size[0] // 10), 0] = 255
    pixels[:, -max(1, size[0] // 10) :, 1] = 255
    pixels[-max(1, size[1] // 10) :, :, 2] = 255
    transform = evaluation_transform(64, mean=(0, 0, 0), std=(1, 1, 1))
    found = transform(Image.fromarray(pixels))
    assert found.shape == (3, 64, 64)
    assert found[0, :, 0].max() == 1 and found[1, :, -1].max() == 1 and found[2, -1].max() == 1


@pytest.mark.parametrize("size", [(20, 210), (300, 30)])
def test_only_what_is_kept_of_a_strip_is_resized(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    side, long = 256, int(256 * max(size) / min(size))
    wide = image.resize((long, side) if size[0] > size[1] else (side, long), Image.BICUBIC)
    left, top = round((wide.width - 224) / 2), round((wide.height - 224) / 2)
    expected = np.asarray(wide.crop((left, top, left + 224, top + 224)), float)
    made: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def recorded(self: Image.Image, size: Any, *args: Any, **kwargs: Any) -> Image.Image:
        made.append(tuple(size))
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    found = evaluation_transform(224, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert made == [(224, 224)]
    assert np.abs(found.permute(1, 2, 0).numpy() * 255 - expected).max() <= 1.01


@pytest.mark.parametrize("size", STRIPS)
def test_attention_and_thumbnails_of_a_strip_stay_small(size: tuple[int, int]) -> None:
    model = create_model("convit_nano", num_classes=0, img_size=32, patch_size=16).eval()
    image = Image.new("RGB", size, (90, 10, 200))
    assert thumbnail(image).shape == (40, 40, 3)
    figure = attention_figure(image_attention(model, prepare_image(image, model, most_patches=40)))
    width, height = figure.get_size_inches()
    assert width * height < 400
    figure.canvas.draw()


def test_huge_pictures_are_opened_at_the_size_that_is_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    image = small.resize((1600, 1200), Image.NEAREST)
    expected = np.asarray(image.resize((200, 150), Image.BICUBIC), float)
    for name, close in (("a.png", 6.0), ("a.jpg", 9.0), ("a.tif", 6.0)):
        image.save(tmp_path / name)
        found = open_image(tmp_path / name, side=200)
        assert found.size == (200, 150)
        assert np.abs(np.asarray(found, float) - expected).mean() < close
    assert bounded(Image.new("RGB", (1, 9000)), 100).size == (1, 100)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("size", [(2, 7000), (7000, 2), (1, 5000), (15, 9000)])
def test_strips_of_any_format_are_shown(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    """A JPEG is decoded at a fraction of its size, but not at none."""
    Image.new("RGB", size, (9, 200, 30)).save(tmp_path / name)
    for side in (32, 500):
        shown = open_image(tmp_path / name, side=side)
        assert max(shown.size) == side and min(shown.size) >= 1
        assert np.abs(np.asarray(shown).astype(int) - (9, 200, 30)).max() < 12
        viewed = view_image(str(tmp_path / name), side=side)
        assert side <= max(viewed.size) <= max(size)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_no_step_makes_more_of_a_huge_picture_than_is_shown(
    tmp_path: Path, name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strip at a time becomes RGB and is reduced; a JPEG is decoded at a fraction of its size."""
    grey = Image.linear_gradient("L").resize((1600, 1200))
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    image = image if mode == "I;16" else grey.convert("RGB").convert(mode)
    try:
        image.save(tmp_path / name)
    except OSError as error:
        pytest.skip(str(error))
    if name == "a.webp" and mode == "I;16":
        pytest.skip("Pillow writes another picture")
    monkeypatch.setattr(eight_bits, "STRIP_PIXELS", 1600 * 32)
    made, loaded = [], []
    convert, load = Image.Image.convert, ImageFile.ImageFile.load
    fromarray = Image.fromarray

    def converted(self: Image.Image, *args: Any, **kwargs: Any) -> Image.Image:
        made.append(self.width * self.height)
        return convert(self, *args, **kwargs)

    def laid_out(array: Any, *args: Any) -> Image.Image:
        made.append(array.shape[0] * array.shape[1])
        return fromarray(array, *args)

    monkeypatch.setattr(Image.Image, "convert", converted)
    monkeypatch.setattr(Image, "fromarray", laid_out)
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda self: (loaded.append(self.size), load(self))[1]
    )
    shown = open_image(tmp_path / name, side=200)
    assert shown.size == (200, 150)
    assert max(made, default=0) <= 1600 * 32
    assert name != "a.jpg" or max(loaded) == (200, 150)
    expected = np.asarray(grey.resize((200, 150), Image.Resampling.BOX), float)
    assert np.abs(np.asarray(shown, float)[..., 1] - expected).mean() < 3


@pytest.mark.parametrize("side", [None, 40])
@pytest.mark.parametrize(
    ("mode", "options"),
    [("P", {"transparency": bytes(range(0, 256, 4))}), ("P", {"transparency": 5}), ("P", {}),
     ("L", {"transparency": 100}), ("LA", {}), ("RGBA", {}), ("1", {}), ("I;16", {})],
)  # fmt: skip
def test_strips_make_the_same_picture_as_the_whole(
    mode: str, options: dict[str, Any], side: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, x = np.mgrid[:211, :173]
    grey = Image.fromarray(((x * 3 + y * 7) % 256).astype(np.uint8))
    turned = grey.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    image = {
        "LA": Image.merge("LA", (grey, turned)),
        "RGBA": Image.merge("RGBA", (grey, turned, grey, turned)),
        "I;16": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
    }.get(mode, grey)
    image = image if image.mode == mode else image.convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    whole = np.asarray(decode_image(file.getvalue(), side=side))
    monkeypatch.setattr(eight_bits, "STRIP_PIXELS", 173 * 10)
    assert np.array_equal(np.asarray(decode_image(file.getvalue(), side=side)), whole)


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_a_large_image_of_16_bits_is_shown_in_little_more_memory(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eight_bits, "STRIP_PIXELS", 1 << 16)
    raw = RawImage((np.arange(3_000_000) % 30_000).reshape(1500, 2000).astype(kind))
    tracemalloc.start()
    shown = to_rgb(raw, factor=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shown.shape == (375, 500, 3)
    assert peak < 2.5 * raw.values.nbytes


def test_a_png_of_16_bits_is_not_held_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation reads a huge image whole: its values, and Pillow's image, which is not NumPy's."""
    monkeypatch.setattr(eight_bits, "STRIP_PIXELS", 1 << 16)
    monkeypatch.setattr(raw_image, "_COPIED", 1 << 16)
    values = (np.arange(3_000_000) % 65_536).reshape(1500, 2000).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    data = file.getvalue()
    tracemalloc.start()
    image = decode_image(data, reading=Reading(white_level=65_535))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = np.rint(values / 257.0).astype(np.uint8)
    assert np.array_equal(np.asarray(image), np.repeat(expected[..., None], 3, axis=-1))
    assert peak < 2 * values.nbytes


def test_exif_rotation_is_asked_for() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    for kind in ("JPEG", "PNG"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, exif=exif)
        data = file.getvalue()
        assert decode_image(data).size == (30, 20)
        turned = np.asarray(decode_image(data, reading=Reading(exif_rotation=True)))
        assert turned.shape == (30, 20, 3)
        assert turned[:10].mean() > 250 and turned[-10:].mean() < 5
        assert (decode_array(data, reading=Reading(exif_rotation=True)) == turned).all()


def test_training_sees_all_of_a_strip() -> None:
    rng = random.Random(0)
    crop = CropConfig(16, scale=(0.25, 1.0))
    places = [draw_crop(crop, 2000, 1, rng).top for _ in range(400)]
    assert min(places) < 100 and max(places) > 1900


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_of_any_depth_is_turned_as_pillow_turns_it(orientation: int) -> None:
    pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, 256, (6, 9), dtype=np.uint8)
    values[0, :2] = 0, 255
    tag = [(274, "H", 1, orientation, True)]
    expected = np.asarray(decode_image(tiff(values, extratags=tag, metadata=None)))
    deep = tiff(values.astype(np.float32), extratags=tag, metadata=None)
    assert (np.asarray(decode_image(deep)) == expected).all()
