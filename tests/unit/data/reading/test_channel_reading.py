"""Images of any number of channels: from the file to normalised tensors."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convit_ssl.data import evaluation_transform, open_dataset
from convit_ssl.data.augment.spec import AugmentConfig, build_augmentation
from convit_ssl.data.checks.channel_statistics import channel_statistics
from convit_ssl.data.reading.channel_reading import read_channels, read_planes
from convit_ssl.data.reading.planes import parse_channels
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError
from tests.unit.data.make_channels import write_four_channels
from tests.unit.data.make_images import png16, tiff

ALL = Reading(channels="all", depth="native")
RNG = np.random.default_rng(0)


def noise(*shape: int, high: int = 60000) -> Any:
    return RNG.integers(0, high, shape).astype(np.uint16)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_tiff_of_n_channels_is_read_to_its_numbers(channels: int, planar: str) -> None:
    values = noise(9, 12, channels)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    if channels == 1:
        stored, planar = values[..., 0], "contig"
    data = tiff(stored, photometric="minisblack", planarconfig=planar)
    assert np.array_equal(read_planes("a.tif", data, ALL).values, values)


def test_pages_that_are_channels(tmp_path: Path) -> None:
    import tifffile

    stack = noise(5, 8, 10)
    data = tiff(stack, photometric="minisblack")
    assert np.array_equal(read_planes("a.tif", data, ALL).values, np.moveaxis(stack, 0, -1))
    names = ["DAPI", "GFP", "Cy3", "Cy5", "BF"]
    metadata = {"axes": "CYX", "Channel": {"Name": names}}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, stack, metadata=metadata, photometric="minisblack")
    planes = read_planes(str(path), path.read_bytes(), ALL)
    assert list(planes.names) == names
    wanted = Reading(channels=("gfp", 1), window=(0.0, 1000.0))
    read = read_channels(str(path), path.read_bytes(), wanted)
    assert read.shape == (8, 10, 2)
    assert read[..., 0] == pytest.approx(np.clip(stack[1] / 1000.0, 0, 1), abs=1e-6)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1"])
def test_files_of_8_bits(mode: str) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    planes = read_planes("a.png", file.getvalue(), ALL)
    counts = {"L": 1, "1": 1, "LA": 2, "RGBA": 4}
    assert planes.channels == counts.get(mode, 3)
    without = read_channels("a.png", file.getvalue(), Reading(depth="native"))
    assert without.shape[-1] == {2: 1, 4: 3}.get(planes.channels, planes.channels)
    assert without.dtype == np.float32 and without.min() >= 0 and without.max() <= 1


def test_16_bits_stay_16_bits() -> None:
    values = noise(7, 8, 3)
    read = read_channels("a.png", png16(values), Reading(channels="all"))
    assert np.rint(read.astype(np.float64) * 65535).astype(np.uint16).tolist() == values.tolist()
    signed = RNG.integers(-1000, 3000, (7, 8)).astype(np.int16)
    window = Reading(depth="native", window=(-1000.0, 400.0))
    read = read_channels("a.tif", tiff(signed), window)[..., 0]
    assert read == pytest.approx(np.clip((signed + 1000) / 1400, 0, 1), abs=1e-6)
    floats = RNG.normal(size=(7, 8)).astype(np.float32)
    floats[0, 0] = np.nan
    read = read_channels("a.tif", tiff(floats), Reading(depth="native"))
    assert np.isfinite(read).all() and read[0, 0, 0] == 0


def test_what_is_not_there_is_named() -> None:
    data = tiff(noise(4, 4, 4), photometric="rgb")
    with pytest.raises(ValueError, match="4 channels, so there is no channel 5"):
        read_channels("a.tif", data, Reading(channels=(5,)))
    with pytest.raises(ValueError, match="no channel 'nir' \\(they are R, G, B"):
        read_channels("a.tif", data, Reading(channels=("nir",)))
    with pytest.raises(ValueError, match="the collection 3"):
        read_channels("a.tif", data, Reading(channels=(1,), file_channels=3))
    for wrong in ("", "0", [1, 1], [], list(range(1, 80))):
        with pytest.raises(UserError, match=r"data\.channels="):
            parse_channels(wrong)
    assert parse_channels("3,nir") == (3, "nir")


def test_statistics_normalise_the_collection(tmp_path: Path) -> None:
    write_four_channels(tmp_path, 6, 2)
    images = open_dataset("folder", tmp_path, reading=ALL)
    found = channel_statistics(list(images.paths), ALL)
    assert found.reading.channels == (1, 2, 3, 4) and found.reading.file_channels == 4
    transform = evaluation_transform(16, mean=found.mean, std=found.std)
    ready = open_dataset("folder", tmp_path, transform=transform, reading=found.reading)
    batch = torch.stack([ready[place][0] for place in range(len(ready))])
    assert batch.shape == (12, 4, 16, 16)
    assert batch.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.0] * 4, abs=1e-4)
    assert batch.std(dim=(0, 2, 3)).tolist() == pytest.approx([1.0] * 4, abs=1e-2)


def test_collections_of_two_kinds_are_refused(tmp_path: Path) -> None:
    for number, channels in enumerate((3, 3, 4)):
        data = tiff(noise(4, 4, channels), photometric="rgb")
        (tmp_path / f"{number}.tif").write_bytes(data)
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    with pytest.raises(UserError, match="2 with 3 and 1 with 4"):
        channel_statistics(paths, ALL)
    assert channel_statistics(paths, Reading(channels=(1, 2, 3))).images == 3


@pytest.mark.parametrize("pipeline", ["fast", "pil"])
@pytest.mark.parametrize("channels", [1, 2, 5, 64])
def test_views_of_n_channels(pipeline: str, channels: int) -> None:
    config = AugmentConfig.dino(32, 16, 2).for_channels([0.5] * channels, [0.25] * channels)
    augment = build_augmentation(config, pipeline)
    image = RNG.random((40, 50, channels)).astype(np.float32)
    kept = image.copy()
    crops = augment(image, seed=3)
    assert [tuple(crop.shape) for crop in crops] == [(channels, 32, 32)] * 2 + [
        (channels, 16, 16)
    ] * 2
    assert np.array_equal(image, kept)
    again = augment(image, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(crops, again, strict=True))
    assert not torch.equal(crops[0], augment(image, seed=4)[0])


def test_a_view_may_lack_a_channel_and_gains_differ() -> None:
    config = AugmentConfig.dino(16, 8, 0).for_channels([0.5] * 3, [0.25] * 3, gain=0.5, drop=1.0)
    augment = build_augmentation(config)
    image = RNG.random((16, 16, 3)).astype(np.float32)
    for seed in range(5):
        lost = (augment(image, seed=seed)[0].abs().amax(dim=(1, 2)) < 1e-5).sum()
        assert lost == 1
    plain = AugmentConfig.crop_and_flip(16, (1.0, 1.0)).for_channels([0.0] * 2, [1.0] * 2, drop=0.0)
    flat = np.full((16, 16, 2), 0.3, np.float32)
    assert build_augmentation(plain)(flat, seed=0).numpy() == pytest.approx(0.3, abs=1e-6)
