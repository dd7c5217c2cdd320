"""How images of one channel and of stains are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convit_ssl.analysis.channel_pictures import ChannelPicture, describe_shown
from convit_ssl.analysis.images import as_shown, bounded, open_image, prepare_image, thumbnail
from convit_ssl.analysis.sampling import open_sample
from convit_ssl.data.colour_maps import check_colour_map, coloured, composite, stain_colours
from convit_ssl.data.value_range import Reading
from convit_ssl.data.viewing import view_image
from convit_ssl.errors import UserError
from convit_ssl.models import convit_nano


def test_stains_have_the_colours_that_microscopes_show() -> None:
    found = stain_colours(["DAPI", "Alexa Fluor 488", "mCherry", "Cy5"])
    assert found is not None
    assert [int(np.argmax(colour)) for colour in found[:3]] == [2, 1, 0]
    assert stain_colours(["DAPI", "brightfield"]) is None
    assert stain_colours([1, 2]) is None and stain_colours([]) is None
    light = [np.full((2, 3), value, np.uint8) for value in (200, 100)]
    both = composite(light, [(1.0, 0.0, 0.0), (1.0, 1.0, 0.0)])
    assert both[0, 0].tolist() == [255, 100, 0]


def test_a_picture_of_stains_and_one_of_a_single_channel() -> None:
    array = np.zeros((8, 8, 2), np.float32)
    array[:4, :, 0] = 1.0
    array[4:, :, 1] = 1.0
    picture = ChannelPicture(array, names=("DAPI", "GFP"))
    for made in (picture, picture.resize((8, 8))):
        pixels = np.asarray(made.convert("RGB"))
        assert np.argmax(pixels[0, 0]) == 2 and np.argmax(pixels[7, 0]) == 1
    assert "stains" in describe_shown(picture.shown, picture.names, True)
    assert ChannelPicture(array, (0,), names=("DAPI", "GFP")).stains is None  # what was asked for
    grey = np.asarray(ChannelPicture(array[..., :1]).convert("RGB"))
    assert np.ptp(grey, axis=-1).max() == 0
    warm = np.asarray(ChannelPicture(array[..., :1], colour_map="inferno").convert("RGB"))
    assert warm[0, 0].tolist() != grey[0, 0].tolist() and np.ptp(warm[0, 0].astype(int)) > 50


def test_thumbnails_of_one_channel_in_a_colour_map(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(64, dtype=np.float32).reshape(8, 8))
    pixels = np.asarray(view_image(str(path), colour_map="viridis"))
    assert pixels[0, 0].tolist() == [68, 1, 84] and pixels[7, 7].tolist() == [253, 231, 37]
    check_colour_map("viridis")
    with pytest.raises(UserError, match="viridis, magma"):
        check_colour_map("nosuch")


def test_the_report_knows_how_wide_a_picture_is(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, np.arange(600, dtype=np.uint16).reshape(20, 30), metadata=metadata)
    native = open_image(path, Reading(depth="native"))
    assert isinstance(native, ChannelPicture) and native.width_mm == pytest.approx(0.015)
    assert native.resize((15, 10)).width_mm == pytest.approx(0.015)
    scaled = open_image(path, Reading())
    assert not isinstance(scaled, ChannelPicture)
    assert scaled.info["width_mm"] == pytest.approx(0.015)


def test_grey_of_8_bits_in_a_colour_map_and_one_channel_of_a_photograph(tmp_path: Path) -> None:
    grey, photo = tmp_path / "grey.png", tmp_path / "photo.png"
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    Image.fromarray(ramp).save(grey)
    Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], axis=-1)).save(photo)
    image = open_image(grey, colour_map="viridis")
    assert np.array_equal(np.asarray(image.convert("RGB"))[..., 1], ramp)  # what a network takes
    shown = np.asarray(as_shown(bounded(image)))
    assert shown[0, 0].tolist() == [68, 1, 84]
    assert np.array_equal(shown, coloured(ramp, "viridis"))
    assert thumbnail(image, 64)[0, 0].tolist() == [68, 1, 84]
    colours = open_image(photo, colour_map="viridis")
    assert np.array_equal(np.asarray(as_shown(colours)), np.asarray(colours))  # not grey
    blue = np.asarray(as_shown(open_image(photo, show=(2,))))
    assert np.array_equal(blue, np.repeat(255 - ramp[..., None], 3, axis=-1))
    with pytest.raises(UserError, match="3 channels"):
        open_image(photo, show=(3,))


def test_a_report_in_8_bits_shows_grey_in_a_colour_map(tmp_path: Path) -> None:
    (tmp_path / "val" / "a").mkdir(parents=True)
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    for number in range(3):
        Image.fromarray(ramp).save(tmp_path / "val" / "a" / f"{number}.png")
    sample, _ = open_sample("folder", str(tmp_path), "val", colour_map="viridis")
    assert sample is not None
    model = convit_nano(img_size=32, num_classes=0)
    for name, image in sample.pictures:
        item = prepare_image(image, model, name)
        plain = prepare_image(open_image(tmp_path / "val" / "a" / name), model, name)
        assert item.picture[0, 0].tolist() == [68, 1, 84]
        assert torch.equal(item.pixels, plain.pixels)
    assert thumbnail(sample.labelled[0].image, 32)[0, 0].tolist() == [68, 1, 84]
