"""How images of one channel and of stains are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convit_ssl.analysis.channel_pictures import ChannelPicture, describe_shown
from convit_ssl.analysis.images import (
    as_shown,
    bounded,
    in_channels,
    open_image,
    prepare_image,
    thumbnail,
)
from convit_ssl.analysis.sampling import open_sample
from convit_ssl.data.reading.colour_maps import check_colour_map, coloured, composite, stain_colours
from convit_ssl.data.reading.shown_channels import find_shown, parse_show
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.data.reading.viewing import view_image
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
    with pytest.raises(UserError, match="1 R, 2 G, 3 B"):
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


@pytest.mark.parametrize(
    ("text", "places"),
    [("4", (3,)), ("nir", (3,)), ("NIR,red,1", (3, 0, 0)), ("4, g ,b", (3, 1, 2))],
)
def test_channels_to_show_by_number_and_by_name(text: str, places: tuple[int, ...]) -> None:
    assert find_shown(parse_show(text), ("red", "green", "blue", "nir"), 4) == places


@pytest.mark.parametrize("text", ["", "0", "1,2", "1,,3", "nir,red", "1,2,3,4"])
def test_neither_one_channel_nor_three(text: str) -> None:
    with pytest.raises(UserError, match="one channel or three"):
        parse_show(text)


def test_an_unknown_channel_to_show_lists_those_there_are() -> None:
    listed = "--show nri: there is no channel nri; the images have 1 red, 2 nir"
    with pytest.raises(UserError, match=listed):
        find_shown(parse_show("nri"), ("red", "nir"), 2)
    listed = "there is no channel 9; the images have 1 red, 2 nir"
    with pytest.raises(UserError, match=listed):
        find_shown(parse_show("1,9,2"), ("red", "nir"), 2)
    with pytest.raises(UserError, match="5 channels without names; give numbers from 1 to 5"):
        find_shown(parse_show("dapi"), (), 5)


def _scenes(root: Path, names: tuple[str, ...], count: int = 3) -> None:
    import tifffile

    (root / "val" / "a").mkdir(parents=True)
    values = np.zeros((len(names), 32, 32), np.uint16)
    for number in range(len(names)):
        values[number, 8 * number : 8 * number + 8] = 1000
    for number in range(count):
        tifffile.imwrite(
            root / "val" / "a" / f"{number}.ome.tif", values,
            metadata={"axes": "CYX", "Channel": {"Name": list(names)}}, photometric="minisblack",
        )  # fmt: skip


def test_a_report_knows_the_channels_by_the_names_of_the_files(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    _scenes(tmp_path, ("red", "green", "blue", "nir"))
    reading = Reading(channels="all")
    where = ("folder", str(tmp_path), "val")
    sample, _ = open_sample(*where, reading=reading, show=("nir", "red", "GREEN"))
    assert sample is not None
    for picture in (sample.pictures[0][1], sample.labelled[0].image):
        assert isinstance(picture, ChannelPicture) and picture.shown == (3, 0, 1)
        assert describe_shown(picture.shown, picture.names).startswith("shown: nir as red")
    alone = open_image(tmp_path / "val/a/0.ome.tif", reading, show=("nir",))
    assert isinstance(alone, ChannelPicture) and alone.shown == (3,)
    with pytest.raises(UserError, match="1 red, 2 green, 3 blue, 4 nir"):
        open_sample(*where, reading=reading, show=("swir",))
    two = Reading(channels=(4, 1))
    sample, _ = open_sample(*where, reading=two, show=("nir",))
    assert sample is not None and sample.labelled[0].image.shown == (0,)  # type: ignore[union-attr]


def test_all_channels_called_after_stains_are_shown_in_their_colours(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    _scenes(tmp_path, ("DAPI", "GFP"))
    sample, _ = open_sample("folder", str(tmp_path), "val", reading=Reading(channels="all"))
    assert sample is not None
    assert [image.stains is not None for _, image in sample.pictures] == [True] * 3  # type: ignore[union-attr]


def test_channels_without_names_are_called_by_their_numbers_in_the_file() -> None:
    picture = in_channels(np.zeros((4, 4, 2), np.float32), Reading(channels=(2, 5)), ("channel 5",))
    assert picture.shown == (1,) and describe_shown((0,), picture.names) == (
        "shown: channel 2 in grey"
    )
    assert describe_shown((0,), ("grey",)) == "shown: in grey"
    assert describe_shown((0,), ("grey",), colour_map="viridis") == "shown: in viridis"
