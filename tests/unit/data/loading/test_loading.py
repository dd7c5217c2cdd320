"""Samplers, seeds, the cache and collation, as a DataLoader runs them."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from convit_ssl.data import ImageFiles, open_dataset
from convit_ssl.data.augment.collate import fast_collate
from convit_ssl.data.augment.fast import Normalize
from convit_ssl.data.augment.parameters import draw_crops
from convit_ssl.data.augment.randomness import RepeatedIndex, sample_seed
from convit_ssl.data.augment.spec import AugmentConfig, CropConfig, build_augmentation
from convit_ssl.data.listing.names import NameTable, as_label
from convit_ssl.data.loading.cache import PixelCache, make_cache
from convit_ssl.data.loading.loader_workers import shared_mib
from convit_ssl.data.loading.samplers import EpochSampler
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / ("ab"[number % 2]) / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    return tmp_path


@given(
    images=st.integers(1, 60),
    world=st.integers(1, 7),
    start=st.integers(0, 60),
    tail=st.sampled_from(["pad", "drop", "uneven"]),
    epoch=st.integers(0, 3),
)
def test_every_image_once_per_epoch_over_all_processes(
    images: int, world: int, start: int, tail: str, epoch: int
) -> None:
    world, start = min(world, images), min(start, images)
    parts = []
    for rank in range(world):
        sampler = EpochSampler(images, rank=rank, world_size=world, tail=tail)
        sampler.set_epoch(epoch, start)
        parts.append(list(sampler))
        assert len(parts[-1]) == len(sampler)
    seen = [index for part in parts for index in part]
    whole = EpochSampler(images)
    whole.set_epoch(epoch)
    left = list(whole)[start:]
    if tail == "uneven":
        assert sorted(seen) == sorted(left)
        return
    assert len({len(part) for part in parts}) == 1
    if tail == "pad":
        assert set(left) <= set(seen)
        assert len(seen) < len(left) + world
    else:
        assert set(seen) <= set(left)
        assert len(set(seen)) == len(seen) > len(left) - world


def test_a_resumed_epoch_goes_on_with_another_number_of_processes() -> None:
    whole = list(EpochSampler(40, seed=7))
    steps = [list(EpochSampler(40, seed=7, rank=r, world_size=4))[:3] for r in range(4)]
    first = [index for step in zip(*steps, strict=True) for index in step]
    assert first == whole[:12]
    rest = [list(EpochSampler(40, seed=7, rank=r, world_size=2, start_index=12)) for r in range(2)]
    assert [index for step in zip(*rest, strict=True) for index in step] == whole[12:]


def test_epochs_and_seeds_shuffle_differently() -> None:
    sampler, other = EpochSampler(100), EpochSampler(100, seed=1)
    first = list(sampler)
    assert list(sampler) == first != list(other)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(EpochSampler(5, shuffle=False)) == [0, 1, 2, 3, 4]


def test_repeated_augmentation_as_deit(folder: Path) -> None:
    ranks = [list(EpochSampler(24, rank=r, world_size=3, repeats=3)) for r in range(3)]
    assert [len(part) for part in ranks] == [8, 8, 8]
    for trio in zip(*ranks, strict=True):
        assert len(set(trio)) == 1  # one image, on three processes
        assert [index.repeat for index in trio] == [0, 1, 2]  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(RepeatedIndex(5, 2)))
    assert (again, again.repeat) == (5, 2)
    transform = build_augmentation(AugmentConfig.crop_and_flip(16))
    dataset = open_dataset("folder", folder, transform=transform)
    views = [dataset[RepeatedIndex(3, repeat)][0] for repeat in range(3)]
    assert torch.equal(views[0], dataset[3][0])
    assert not torch.equal(views[0], views[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "counted from 0"),
        ({"world_size": 11}, "use fewer processes"),
        ({"start_index": 11}, "start_index is 11"),
        ({"tail": "x"}, "pad, drop, uneven"),
        ({"repeats": 0}, "at least 1"),
    ],
)
def test_sampler_messages(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EpochSampler(10, **options)  # type: ignore[arg-type]


def test_sample_seeds_do_not_collide() -> None:
    seeds = {sample_seed(s, e, i) for s in range(3) for e in range(10) for i in range(1000)}
    assert len(seeds) == 30_000
    assert sample_seed(1, 2, 3) == 7510213797696614745  # written down: resumed runs depend on it
    assert sample_seed(1, 2, 3) != sample_seed(1, 3, 2)


def crops_of(dataset: ImageFiles, workers: int, method: str | None) -> list[torch.Tensor]:
    loader = DataLoader(
        dataset,
        batch_size=6,
        sampler=EpochSampler(len(dataset), shuffle=False),
        num_workers=workers,
        collate_fn=fast_collate,
        multiprocessing_context=multiprocessing.get_context(method) if method else None,
        persistent_workers=workers > 0,
    )
    found = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        batches = [crops for crops, _, _ in loader]
        found += [torch.cat(parts) for parts in zip(*batches, strict=True)]
    return found


@pytest.mark.parametrize(
    ("pipeline", "cache_bytes", "workers", "method"),
    [
        ("fast", 0, 1, "fork"),
        ("fast", 1 << 20, 2, "forkserver"),
        ("pil", 0, 2, "fork"),
        ("pil", 1 << 20, 1, "fork"),
    ],
)
def test_crops_do_not_depend_on_the_workers(
    folder: Path, pipeline: str, cache_bytes: int, workers: int, method: str
) -> None:
    transform = build_augmentation(AugmentConfig.dino(16, 8, 2), pipeline)
    dataset = open_dataset("folder", folder, transform=transform, cache_bytes=cache_bytes)
    alone = crops_of(dataset, 0, None)
    assert not torch.equal(alone[0], alone[4])  # epochs differ
    together = crops_of(dataset, workers, method)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_collation_keeps_channels_last_and_grey_planes(folder: Path) -> None:
    dataset = open_dataset("folder", folder)
    for grey in (False, True):
        config = AugmentConfig.dino(16, 8, 1).adapt(grey_images=grey)
        dataset.transform = build_augmentation(config)
        (first, _, local), targets, indices = fast_collate([dataset[i] for i in (3, 1, 4)])
        channels = 1 if grey else 3
        assert (first.shape, local.shape) == ((3, channels, 16, 16), (3, channels, 8, 8))
        assert first.dtype == torch.uint8
        assert targets.tolist() == [dataset.targets[i] for i in (3, 1, 4)]
        assert indices.tolist() == [3, 1, 4]
        if not grey:
            assert first.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(first[1].expand(3, -1, -1), dataset[1][0][0])
        # Else it cannot be pinned, which loaders do where there is a GPU.
        assert all(0 not in crop.stride() for crop in (first, local))
    dataset.transform = build_augmentation(config, "device")
    canvas, _, _ = fast_collate([dataset[i] for i in (0, 1)])
    assert canvas.pixels.shape[:2] == (2, 3)
    assert canvas.drawn.shape == (2, 3, 18)


def test_views_in_a_tuple_become_a_list_of_batches() -> None:
    one, other = torch.rand(3, 5, 7), torch.rand(3, 2, 2)
    (first, second), _, _ = fast_collate([((one, other), 0, 0), ((one, other), 1, 1)])
    assert first.shape == (2, 3, 5, 7)
    assert second.shape == (2, 3, 2, 2)
    assert shared_mib([((one, other), 0, 0)], 1024**2) > 0


def test_normalised_grey_crops_keep_three_channels() -> None:
    """Float crops go past what normalises, and makes three channels of one."""
    crop = torch.rand(5, 7).expand(3, -1, -1)
    batch, _, _ = fast_collate([(crop, 0, 0), (crop, 1, 1)])
    assert batch.shape == (2, 3, 5, 7)
    assert 0 not in batch.stride()


def test_grey_batches_are_normalised_as_three_channels() -> None:
    normalize = Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    images = torch.randint(0, 256, (2, 1, 5, 7), dtype=torch.uint8)
    expected = normalize(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(normalize(images), expected, rtol=0, atol=0)
    assert normalize(images).shape == (2, 3, 5, 7)


def test_normalize_is_torchvisions_and_leaves_float_alone() -> None:
    from torchvision.transforms.functional import normalize

    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    module = Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
    expected = normalize(images / 255.0, [0.4, 0.5, 0.6], [0.2, 0.3, 0.1])
    torch.testing.assert_close(module(images), expected, rtol=1e-5, atol=1e-5)
    assert module(expected) is expected
    assert not module.state_dict()


def test_the_cache_gives_back_what_it_got(folder: Path) -> None:
    dataset = open_dataset("folder", folder, cache_bytes=1 << 20)
    plain = open_dataset("folder", folder)
    for path in dataset.paths:
        assert Path(path).exists()
    first = [np.asarray(dataset[i][0]) for i in range(24)]
    for path in folder.rglob("*.png"):
        path.unlink()  # from memory now
    again = [np.asarray(dataset[i][0]) for i in range(24)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert plain.files == dataset.files
    clone = copy.deepcopy(dataset._cache)
    assert clone is not None
    assert clone.get(0) is None


def test_images_of_native_depth_are_kept_in_their_own_numbers(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(0)
    for number in range(6):
        values = rng.integers(-900, 3000, (8 + number, 9, 5)).astype(np.int16)
        tifffile.imwrite(tmp_path / f"{number}.tif", values, photometric="minisblack")
    ranges = tuple((-900.0, 3000.0 + channel) for channel in range(5))
    reading = Reading(depth="native", channels=tuple(range(1, 6)), channel_ranges=ranges)
    kept = open_dataset("folder", tmp_path, reading=reading, cache_bytes=1 << 20)
    plain = open_dataset("folder", tmp_path, reading=reading)
    first = [np.array(kept[place][0]) for place in range(6)]
    expected = [plain[place][0] for place in range(6)]
    for path in tmp_path.glob("*.tif"):
        path.unlink()  # from memory now
    again = [kept[place][0] for place in range(6)]
    for one, two, three in zip(first, again, expected, strict=True):
        assert one.dtype == two.dtype == np.float32 and three.shape == two.shape
        assert np.array_equal(one, two) and np.array_equal(two, three)
    config = AugmentConfig.dino(8, 4, 2).for_channels([0.5] * 5, [0.2] * 5)
    kept.transform = build_augmentation(config)
    for place in range(6):
        kept[place]  # crops leave what is kept as it is
    kept.transform = None
    assert all(np.array_equal(kept[n][0], expected[n]) for n in range(6))


def test_the_cache_is_only_made_where_all_fits() -> None:
    assert make_cache([(8, 8)], 10, 10 * 8 * 8 * 3) is not None
    assert make_cache([(8, 8), (8, 9)], 10, 10 * 8 * 8 * 3) is None
    # One large image among small ones: what they take together counts, not the largest.
    sizes = [(64, 64)] * 31 + [(2000, 2000)]
    mixed = make_cache(sizes, 1000, 1 << 29)
    assert mixed is not None and mixed.slot_bytes == 2000 * 2000 * 3
    large = np.zeros((2000, 2000, 3), np.uint8)
    for place in range(50):
        mixed.put(place, large)
    kept = sum(mixed.get(place) is not None for place in range(50))
    assert kept == (1 << 29) // large.nbytes  # and no more memory is taken than was allowed
    mixed.put(60, np.full((64, 64, 3), 5, np.uint8))
    assert mixed.get(60).max() == 5  # type: ignore[union-attr]
    cache = PixelCache(2, 12)
    cache.put(0, np.ones((3, 3, 3), np.uint8))
    assert cache.get(0) is None
    cache.put(1, np.full((2, 2, 3), 7, np.uint8))
    assert cache.get(0) is None
    assert cache.get(1).tolist() == np.full((2, 2, 3), 7).tolist()  # type: ignore[union-attr]


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    seed=st.integers(0, 1000),
    low=st.floats(0.01, 1.0),
)
def test_boxes_lie_in_the_image(height: int, width: int, seed: int, low: float) -> None:
    config = AugmentConfig((CropConfig(8, count=4, scale=(low, 1.0)),))
    for drawn in draw_crops(config, height, width, seed):
        assert 0 <= drawn.top <= drawn.top + drawn.height <= height
        assert 0 <= drawn.left <= drawn.left + drawn.width <= width
        assert min(drawn.height, drawn.width) >= 1


def test_grey_images_keep_brightness_and_contrast_only() -> None:
    config = AugmentConfig.dino(16, 8, 1).adapt(grey_images=True, horizontal_flip=0.0)
    image = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    for pipeline in ("fast", "pil"):
        transform = build_augmentation(config, pipeline)
        source = Image.fromarray(image) if pipeline == "pil" else image
        for crop in transform(source, seed=1):
            if pipeline == "fast":
                assert torch.equal(crop[0], crop[2])
    drawn = [d for seed in range(20) for d in draw_crops(config, 16, 16, seed)]
    assert {operation for d in drawn for operation, _ in d.jitter} == {0, 1}
    assert not any(d.grey or d.flip for d in drawn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "at least 1"),
        ({"scale": (0.5, 0.1)}, "scale is"),
        ({"scale": (0.0, 1.0)}, "scale is"),
        ({"ratio": (0.0, 1.0)}, "ratio is"),
        ({"interpolation": "area"}, "bilinear or bicubic"),
        ({"size": (8, 4), "rotate90": True}, "square"),
        ({"jitter": (0.1, 0.1, 0.1, 0.6)}, "hue is at most 0.5"),
        ({"blur_prob": 1.5}, "blur_prob is 1.5"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
    ],
)
def test_crop_messages(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CropConfig(**{"size": 8, **options})  # type: ignore[arg-type]


def test_augmentation_messages() -> None:
    with pytest.raises(UserError, match="fast, pil, device"):
        build_augmentation(AugmentConfig.dino(), "quick")
    with pytest.raises(UserError, match="at least one"):
        AugmentConfig(())
    with pytest.raises(UserError, match="one crop per image"):
        AugmentConfig((CropConfig(8, count=2),), erase_prob=0.1)


def test_small_supervised_crops_are_shifted_not_cut() -> None:
    transform = build_augmentation(AugmentConfig.supervised(32, rand_augment=None, erase_prob=0.0))
    image = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
    assert transform(image, seed=0).shape == (3, 32, 32)


@given(names=st.lists(st.text(max_size=20), max_size=20))
def test_a_name_table_is_a_list_of_strings(names: list[str]) -> None:
    table = NameTable(names, prefix="/x/")
    plain = [f"/x/{name}" for name in names]
    assert table == plain
    assert plain == table
    assert (list(table), len(table), table[2:5]) == (plain, len(plain), plain[2:5])
    assert NameTable(table) == names
    assert pickle.loads(pickle.dumps(table)) == plain
    if names:
        assert table[-1] == plain[-1]
        assert table.index(plain[0]) == 0
    with pytest.raises(IndexError):
        table[len(names)]


def test_undecodable_file_names_survive() -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert NameTable([name])[0] == name
    assert as_label(name) == "caf\ufffd.png"


def test_dollars_enclose_no_mathematics_in_a_figure() -> None:
    assert as_label("größe $1$") == r"größe \$1\$"


def test_augmentations_keep_small_images_and_evaluation_does_not(folder: Path) -> None:
    augmented = build_augmentation(AugmentConfig.simclr(16))
    assert open_dataset("folder", folder, transform=augmented)._cache is not None
    assert open_dataset("folder", folder)._cache is None


def test_a_replacement_comes_with_its_own_number(tmp_path: Path) -> None:
    """Methods that tell images apart would else learn one image under two numbers."""
    folder = tmp_path / "train" / "x"
    folder.mkdir(parents=True)
    for number in (0, 2, 3):
        Image.new("L", (8, 8), 50 * number).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"not an image")
    images = open_dataset("folder", tmp_path, max_corrupt=1.0)
    shown, target, number = images[1]
    assert number != 1 and target == 0
    assert np.asarray(shown).flat[0] == 50 * number
    assert [images[place][2] for place in (0, 2, 3)] == [0, 2, 3]
