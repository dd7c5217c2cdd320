"""The images of ``convit-ssl segment``: with their masks, divided, and as maps of features."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.data import EvaluationTransform, ImageFiles
from convit_ssl.data.listing.division import divide, part_of
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.masks import Mask, find_masks, read_mask
from convit_ssl.data.opening import find_listing
from convit_ssl.data.reading.pixels import image_header
from convit_ssl.errors import UserError
from convit_ssl.evaluation.processes import default_device
from convit_ssl.evaluation.progress import Report

PIXEL_GRID = 4  # raw pixels of a patch: so many a side, at most


@dataclass(frozen=True)
class Side:
    """Images with masks: those to learn from, or those of the test.

    Attributes:
        name: train, val or test, which is where masks are looked for.
        listing: the images.
        masks: paths.
        groups: (N,) numbers of groups; None where each image stands for itself.
    """

    name: str
    listing: Listing
    masks: list[str]
    groups: np.ndarray[Any, Any] | None = None


def open_sides(args: argparse.Namespace) -> tuple[Side, Side]:
    """What is learned from and what is tested on; only names are read.

    Raises:
        UserError: nothing to test on, or images without masks.
    """
    spec = division_options.spec_of(args)
    if spec.folds:
        raise UserError("segment tests on one part of the images: use --holdout 0.2")
    data = probe_sources.data_name(args)
    train = find_listing(data, args.data_dir, "train")
    if spec.divides:
        division = divide(train, spec)
        keys = division.groups[division.test_rows()] if division.grouped else None
        sides = [(part_of(division, name), name) for name in ("train", "val")]
        learned, tested = (
            Side(name, one, find_masks(one, args.masks, "train")) for one, name in sides
        )
        return learned, dataclasses.replace(tested, groups=keys)
    for part in ("test", "val"):
        try:
            listing = find_listing(data, args.data_dir, part)
        except UserError:
            continue
        return (
            Side("train", train, find_masks(train, args.masks, "train")),
            Side(part, listing, find_masks(listing, args.masks, part)),
        )
    raise UserError(
        f"{train.root} has no val/ or test/ folder, so there is nothing to test on; hold out a "
        "part of the images with --holdout 0.2 (with --group-by where images belong together)"
    )


def read_masks(sides: Sequence[Side], progress: Report | None = None) -> list[list[Mask]]:
    """The masks of all images, side by side.

    Args:
        sides: to learn from, and of the test.
        progress: called with (masks read, masks in all).

    Raises:
        UserError: one cannot be read, or has another size than its image.
    """
    places = [(side, number) for side in sides for number in range(len(side.masks))]
    masks: list[Mask] = []
    for side, number in places:
        masks.append(_checked(side, number))
        if progress is not None:
            progress(len(masks), len(places))
    read = iter(masks)
    return [[next(read) for _ in side.masks] for side in sides]


def _checked(side: Side, number: int) -> Mask:
    mask = read_mask(side.masks[number])
    path = os.path.join(side.listing.root, side.listing.files[number])
    try:
        header = image_header(path)
    except Exception:  # it is left out when it is read
        return mask
    if mask.shape != (header.height, header.width):
        raise UserError(
            f"the mask {side.masks[number]} has {mask.shape[0]} x {mask.shape[1]} pixels, but "
            f"its image {header.height} x {header.width}; give masks of the size of their images"
        )
    return mask


class MapTransform:
    """An image at its own size (or a given one), as a network reads it: no part is cut off.

    Args:
        patch: pixels of a patch; sides become multiples of it.
        longest: pixels of the longer side at most.
        size: height and width for all images; None keeps each image's own.
        mean: of the channels.
        std: of the channels.
    """

    def __init__(
        self,
        patch: int,
        longest: int,
        size: tuple[int, int] | None,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.patch, self.longest, self.given = patch, longest, size
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, image: Any) -> Tensor:
        """A normalised tensor (C, H, W)."""
        made = EvaluationTransform(self.size_of(image), mean=self.mean, std=self.std)
        made.whole = True
        return made(image)

    def size_of(self, image: Any) -> tuple[int, int]:
        """Height and width in pixels, multiples of the patch."""
        if self.given is not None:
            return self.given
        is_array = isinstance(image, np.ndarray)
        height, width = image.shape[:2] if is_array else image.size[::-1]
        factor = min(1.0, self.longest / max(height, width))
        sides = (max(1, round(side * factor / self.patch)) for side in (height, width))
        rows, columns = sides
        return rows * self.patch, columns * self.patch


def feature_maps(
    images: ImageFiles,
    network: nn.Module | None,
    patch: int,
    device: Any = None,
    progress: Any = None,
) -> Iterator[tuple[int, Tensor]]:
    """(number of the image, map (rows, columns, D)) of each image that can be read.

    Args:
        images: with `MapTransform`.
        network: a ConViT; None gives raw pixels.
        patch: pixels of a patch.
        device: where it is computed.
        progress: called with (images done, images in all).
    """
    device = device or default_device()
    network = None if network is None else network.to(device).eval()
    for number in range(len(images)):
        picture, _, index = images[number]
        if index >= 0:
            yield number, _map(picture, network, patch, device)
        if progress is not None:
            progress(number + 1, len(images))


def _map(picture: Tensor, network: nn.Module | None, patch: int, device: Any) -> Tensor:
    if network is None:
        return pixel_map(picture, patch)
    with torch.inference_mode():
        made: Any = network.get_intermediate_layers(  # type: ignore[operator]
            picture[None].to(device), n=1, reshape=True
        )
    rows: Tensor = made[0][0].permute(1, 2, 0).float().cpu().clone()
    return rows


def pixel_map(picture: Tensor, patch: int) -> Tensor:
    """The pixels of each patch, at most `PIXEL_GRID` a side: (rows, columns, D)."""
    height, width = picture.shape[-2:]
    side = min(PIXEL_GRID, patch)
    rows, columns = height // patch, width // patch
    small = F.adaptive_avg_pool2d(picture[None], (rows * side, columns * side))[0]
    cut: Tensor = small.unflatten(2, (columns, side)).unflatten(1, (rows, side))
    return cut.permute(1, 3, 0, 2, 4).flatten(2)
