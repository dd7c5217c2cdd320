"""Which channels a run reads, how they are normalised, and what that means for the trunk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from convit_ssl.data import ImageFiles
from convit_ssl.data.checks.channel_statistics import ChannelStatistics, channel_statistics
from convit_ssl.data.readers import check_reader
from convit_ssl.data.reading.planes import parse_channels
from convit_ssl.data.reading.value_range import Reading, parse_length, parse_window
from convit_ssl.engines.options.draft import Draft
from convit_ssl.engines.options.pixel_ranges import recorded_data
from convit_ssl.errors import UserError
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.schema import DataOptions

RGB = 3
LARGEST_SCALE = 1024
# What the weights' images were read as; `knn` and the like read theirs in the same way.
READ = (
    "window", "parts", "reader", "tiles", "tile_scales", "tile_share", "physical", "pixel_size",
)  # fmt: skip
RGB_ONLY = ("saturation", "hue", "grey", "solarize")
# What a run that is resumed, or weights that are trained on, hand over.
KEPT = ("channels", "file_channels", "channel_ranges", "mean", "std")


def check_channels(tree: Draft, explicit: frozenset[str]) -> None:
    """Refuse what no file can give, and bring ``data.channels`` and ``data.window`` into form.

    Raises:
        UserError: names the option.
    """
    data = tree.data
    if data.depth not in (None, "8bit", "native"):
        raise UserError(f"data.depth={data.depth}: use 8bit or native")
    check_reader(data.reader or "auto")
    channels = parse_channels(_plain(data.channels))
    data.channels = list(channels) if isinstance(channels, tuple) else channels
    if data.window is not None:
        window = parse_window(_plain(data.window))
        if window is None:
            raise UserError(
                f"data.window={data.window}: give the values that become black and white, such as "
                "-1000:400, or file"
            )
        data.window = list(window) if isinstance(window, tuple) else window
    _check_lengths(tree)
    _check_tiles(data)
    native = Reading.of(data).native
    if "trunk.in_chans" in explicit and not native and tree.trunk.in_chans != RGB:
        raise UserError(
            f"trunk.in_chans={tree.trunk.in_chans}: images are read as RGB, in 3 channels. Read "
            "the channels of the files with data.channels=all, or some of them with "
            "data.channels=[1,4]; trunk.in_chans follows from it"
        )
    given = [name for name in ("channel_ranges", "mean", "std") if getattr(data, name) is not None]
    if given and not native:
        raise UserError(
            f"data.{given[0]} has no effect without data.channels or data.depth=native; add one of "
            "them, or leave it out"
        )
    useless = [name for name in RGB_ONLY if _is_on(getattr(tree.augmentation, name))]
    if useless and native:
        raise UserError(
            f"augmentation.{useless[0]} is for RGB and has no effect with data.channels or "
            "data.depth=native; leave it out, or see augmentation.channel_gain and channel_drop"
        )
    if native and tree.augment == "device":
        raise UserError(
            "augment=device makes views of 8-bit RGB; use augment=fast for data.channels and "
            "data.depth=native"
        )


def _check_lengths(tree: Draft) -> None:
    """Bring ``crops.physical`` and ``data.pixel_size`` into mm."""
    for name, value in (("crops.physical", tree.crops.physical),
                        ("data.pixel_size", tree.data.pixel_size)):  # fmt: skip
        if value is not None and not parse_length(value):
            raise UserError(f"{name}={value}: give a length with its unit, such as 50um or 10m")
    if tree.crops.physical is not None:
        tree.data.physical = parse_length(tree.crops.physical)
    if tree.data.pixel_size is not None:
        tree.data.pixel_size = parse_length(tree.data.pixel_size)
        if tree.crops.physical is None:
            raise UserError(
                "data.pixel_size has no effect without crops.physical; add it, or leave "
                "data.pixel_size out"
            )


def _check_tiles(data: DataOptions) -> None:
    scales = _plain(data.tile_scales)
    given = scales if isinstance(scales, list) else [scales] if scales is not None else []
    if any(not isinstance(n, int) or not 1 <= n <= LARGEST_SCALE for n in given):
        raise UserError(
            f"data.tile_scales={scales}: give whole numbers from 1 to {LARGEST_SCALE}, such as "
            "2 or [1,2,4]"
        )
    data.tile_scales = given or None


def _is_on(value: Any) -> bool:
    """Whether an augmentation was asked for: 0, for one view or for each, leaves it out."""
    plain = _plain(value)
    return any(plain) if isinstance(plain, list) else bool(plain)


def choose_channels(
    tree: Draft, train: ImageFiles, folder: Path | None, explicit: frozenset[str]
) -> ChannelStatistics | None:
    """Set channels, ranges and normalisation from the training images; None of 8-bit RGB.

    A run that is resumed keeps those that it began with.

    Args:
        tree: the options; changed in place.
        train: the images.
        folder: of the run that may be resumed; None for a new one.
        explicit: options that the user gave.

    Raises:
        UserError: images that do not go together, or another ``trunk.in_chans``.
    """
    data = tree.data
    if not Reading.of(data).native:
        return None
    before = recorded_data(folder, KEPT)
    for name, value in before.items():
        if f"data.{name}" not in explicit and value is not None:
            setattr(data, name, value)
    with progress_bar("reading the channels", "images") as progress:
        found = channel_statistics(list(train.paths), Reading.of(data), progress)
    count = len(found.mean)
    if "trunk.in_chans" in explicit and tree.trunk.in_chans != count:
        raise UserError(
            f"trunk.in_chans={tree.trunk.in_chans}, but {count} channels are read from each image; "
            "leave trunk.in_chans out"
        )
    tree.trunk.in_chans = count
    assert isinstance(found.reading.channels, tuple) and found.reading.channel_ranges is not None
    data.channels = list(found.reading.channels)
    data.file_channels = found.reading.file_channels
    data.channel_ranges = [list(pair) for pair in found.reading.channel_ranges]
    for name, own in (("mean", found.mean), ("std", found.std)):
        given = _plain(getattr(data, name))
        if given is not None and len(given) != count:
            raise UserError(f"data.{name} has {len(given)} values for {count} channels")
        setattr(data, name, list(own) if given is None else given)
    return found


def channel_facts(tree: Draft, found: ChannelStatistics | None) -> dict[str, Any]:
    """What a checkpoint says of its channels; nothing of 8-bit RGB."""
    names = READ if found is None else ("depth", *KEPT, *READ)
    facts = {name: _plain(getattr(tree.data, name)) for name in names}
    if found is not None:
        facts["channel_names"] = list(found.names)
    return {name: value for name, value in facts.items() if value is not None}


def same_channels(weights: Reading, tree: Draft, explicit: frozenset[str]) -> bool:
    """Whether the ranges of the weights' channels are those of the channels that are read now."""
    if "data.channels" not in explicit:
        return True
    now = _plain(tree.data.channels)
    return isinstance(now, Sequence) and tuple(now) == weights.channels


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
