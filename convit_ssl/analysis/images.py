"""From a picture of any shape to what a model takes, and to what a page shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from convit_ssl.analysis.channel_pictures import ChannelPicture, Shown
from convit_ssl.data.augment.channels import resize_channels
from convit_ssl.data.augment.evaluation import IMAGENET_MEAN, IMAGENET_STD
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.readers import reads_by_path
from convit_ssl.data.reading.channel_reading import read_planes, special_rgb
from convit_ssl.data.reading.colour_maps import coloured
from convit_ssl.data.reading.pixels import Reading, decode_image
from convit_ssl.data.reading.planes import chosen, scaled
from convit_ssl.data.reading.scale_bar import picture_width, with_scale_bar
from convit_ssl.data.reading.shown_channels import RGB_NAMES, find_shown
from convit_ssl.errors import UserError
from convit_ssl.models import ConViT

# Pixels of the longer side of what a page or a figure is made from.
LARGEST = 2048
RGB = 3
_ROOM = 256  # pixels of the longer side that a scale bar wants
Bounded = TypeVar("Bounded", bound=Shown)


@dataclass(frozen=True)
class PreparedImage:
    """One picture, ready for a model and for a page.

    Attributes:
        name: shown as its title.
        pixels: normalised input of the model, (chans, height, width).
        picture: the same view in RGB for display, at its own resolution.
        grid: rows and columns of patches.
    """

    name: str
    pixels: Float[Tensor, "chans height width"]
    picture: UInt8[np.ndarray, "rows columns 3"]
    grid: tuple[int, int]


def open_image(
    path: Path,
    reading: Reading | None = None,
    side: int = LARGEST,
    show: Sequence[int | str] | None = None,
    colour_map: str | None = None,
) -> Shown:
    """Open a picture, no larger than is shown: as RGB, or in all channels of native depth.

    Args:
        path: of the picture.
        reading: how files become 8-bit RGB, as in training.
        side: a picture whose longer side has more pixels is made smaller.
        show: channels that are shown, by number from 0 on or by name.
        colour_map: of matplotlib, for images of one channel.

    Raises:
        UserError: no such file, not a picture, or a channel to show that it does not have.
    """
    try:
        reading = reading or Reading()
        place = str(path)
        data = None if reads_by_path(place, reading) else read_bytes(place)
        if reading.native:
            planes = chosen(read_planes(place, data, reading), reading)
            array = scaled(planes, reading)
            channels = in_channels(array, reading, show, colour_map, planes.names)
            return bounded(measured(channels, place, reading), side)
        special = special_rgb(place, data, reading)
        if special is not None:
            picture = Image.fromarray(special)
        else:
            # Of half the side twice as many pixels are kept: as many as are shown.
            picture = decode_image(data or b"", reading=reading, side=side // 2)
        in_colours(picture, show, colour_map)
        return bounded(measured(picture, place, reading), side)
    except UserError:
        raise
    except Exception as error:  # Pillow and tifffile raise many kinds for a damaged file
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot open {path} as an image: {reason}") from error


def measured(image: Bounded, path: str, reading: Reading) -> Bounded:
    """The image, which knows how wide it is in mm where its file says so."""
    width = picture_width(path, reading)
    if isinstance(image, ChannelPicture):
        image.width_mm = width
    elif width is not None:
        image.info["width_mm"] = width
    return image


def in_channels(
    array: Any,
    reading: Reading,
    show: Sequence[int | str] | None,
    colour_map: str | None = None,
    names: Sequence[str] = (),
) -> ChannelPicture:
    """An array as a picture.

    Args:
        array: (H, W, C), the channels that the network takes.
        reading: how they were read.
        show: channels that are shown, by number from 0 on or by name.
        colour_map: of matplotlib, for images of one channel.
        names: of the channels, where the file has them.

    Raises:
        UserError: a channel to show that there is not.
    """
    count = array.shape[-1]
    known = names_of_channels(reading, names, count)
    places = find_shown(show, known, count) if show else None
    return ChannelPicture(array, places, reading.window is not None, known, colour_map)


def names_of_channels(reading: Reading, names: Sequence[str], count: int) -> tuple[str, ...]:
    """Of the channels that a network takes: the file's, or else the numbers they have there."""
    if len(names) == count:
        return tuple(names)
    asked = reading.channels if isinstance(reading.channels, tuple) else ()
    if len(asked) != count or asked == tuple(range(1, count + 1)):
        return ()
    return tuple(f"channel {one}" if isinstance(one, int) else one for one in asked)


def in_colours(
    image: Image.Image, show: Sequence[int | str] | None, colour_map: str | None
) -> Image.Image:
    """Note in an 8-bit image how a page shows it; a network takes it as it is.

    Raises:
        UserError: a channel to show that there is not.
    """
    if show:
        image.info["show"] = find_shown(show, RGB_NAMES, RGB)
    if colour_map:
        image.info["colour_map"] = colour_map
    return image


def as_shown(image: Shown) -> Image.Image:
    """RGB for a page: of an 8-bit image the chosen channels, and grey in a colour map."""
    rgb: Image.Image = image.convert("RGB")
    show = None if isinstance(image, ChannelPicture) else image.info.get("show")
    colour_map = None if isinstance(image, ChannelPicture) else image.info.get("colour_map")
    if not show and not colour_map:
        return rgb
    pixels = np.asarray(rgb)
    if show:
        pixels = pixels[..., list(show) * (RGB if len(show) == 1 else 1)]
    grey = bool((pixels == pixels[..., :1]).all())
    return Image.fromarray(coloured(pixels[..., 0], colour_map) if grey and colour_map else pixels)


def bounded(image: Bounded, side: int = LARGEST) -> Bounded:
    """The image, made smaller where its longer side has more than ``side`` pixels."""
    width, height = image.size
    if max(width, height) <= side:
        return image
    factor = side / max(width, height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    made: Any = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return cast(Bounded, made)


def input_size(size: tuple[int, int], model: ConViT, most_patches: int = 784) -> tuple[int, int]:
    """(height, width) in pixels that keeps the aspect ratio and that the patch divides.

    The shorter side is that of the model's training size, less where the longer one would
    need more than `most_patches` patches in all.

    Args:
        size: (height, width) of the picture in pixels.
        model: gives patch and training size.
        most_patches: dense maps grow with the square of it.
    """
    patch = model.config.patch_size
    scale = min(model.config.image_shape) / min(size)
    patches = (size[0] * scale / patch) * (size[1] * scale / patch)
    if patches > most_patches:
        scale *= (most_patches / patches) ** 0.5
    rows, columns = (max(1, round(side * scale / patch)) for side in size)
    # A very long strip: the short side is at its single patch, so the long one gives way.
    rows, columns = min(rows, most_patches // columns or 1), min(columns, most_patches)
    return rows * patch, columns * patch


def prepare_image(
    image: Shown,
    model: ConViT,
    name: str = "image",
    most_patches: int = 784,
    display_side: int = 384,
) -> PreparedImage:
    """Resize without cropping, so that a picture of any shape is seen whole.

    Args:
        image: any mode and size.
        model: gives patch size, training size and channels.
        name: title.
        most_patches: see `input_size`.
        display_side: longest side of the displayed picture in pixels.
    """
    rgb = image.convert("RGB")
    height, width = input_size((rgb.height, rgb.width), model, most_patches)
    mean, std = statistics(model)
    if isinstance(image, ChannelPicture):
        resized = resize_channels(image.array, (height, width), "bicubic")
    else:
        small = rgb.resize((width, height), Image.Resampling.BICUBIC)
        resized = np.asarray(small, np.float32) / np.float32(255)
        if len(mean) != RGB:  # of grey images, which are made from colour below
            mean, std = (np.asarray(v, np.float32) for v in (IMAGENET_MEAN, IMAGENET_STD))
    normalised = (resized - mean) / std
    pixels = torch.from_numpy(normalised.transpose(2, 0, 1).copy())
    if model.config.in_chans == 1 and len(pixels) == RGB:
        pixels = pixels.mean(dim=0, keepdim=True)
    factor = min(1.0, display_side / max(rgb.size))
    size = max(1, round(rgb.width * factor)), max(1, round(rgb.height * factor))
    shown = _with_bar(as_shown(image).resize(size), image)
    return PreparedImage(name, pixels, np.asarray(shown), model.grid_size(height, width))


def _with_bar(shown: Image.Image, image: Shown) -> Image.Image:
    """With a scale bar, where the size is known; a small picture is enlarged to make room."""
    width = image.width_mm if isinstance(image, ChannelPicture) else image.info.get("width_mm")
    if not width:
        return shown
    times = max(1, round(_ROOM / max(shown.size)))
    if times > 1:
        size = shown.width * times, shown.height * times
        shown = shown.resize(size, Image.Resampling.NEAREST)
    return with_scale_bar(shown, (width / shown.width, width / shown.width))


def statistics(model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation that the weights were trained with; ImageNet's by default."""
    data = (getattr(model, "provenance", {}).get("entry") or {}).get("data")
    data = data if isinstance(data, dict) else {}
    mean, std = data.get("mean", IMAGENET_MEAN), data.get("std", IMAGENET_STD)
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)


def thumbnail(image: Shown, side: int = 40) -> UInt8[np.ndarray, "side side 3"]:
    """The whole picture in a small square, on a grey ground where it is not square."""
    inside = bounded(as_shown(image), side)
    if max(inside.size) < side:
        factor = side / max(inside.size)
        size = max(1, round(inside.width * factor)), max(1, round(inside.height * factor))
        inside = inside.resize(size, Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side), (128, 128, 128))
    square.paste(inside, ((side - inside.width) // 2, (side - inside.height) // 2))
    return np.asarray(square)


def sprite_sheet(
    thumbnails: UInt8[np.ndarray, "images side side 3"], columns: int = 16
) -> UInt8[np.ndarray, "rows_px columns_px 3"]:
    """All thumbnails in one picture, row by row: one download, one decode."""
    count, side = thumbnails.shape[:2]
    rows = max(1, -(-count // columns))
    sheet = np.full((rows * columns, side, side, 3), 128, np.uint8)
    sheet[:count] = thumbnails
    tiled = sheet.reshape(rows, columns, side, side, 3).swapaxes(1, 2)
    return tiled.reshape(rows * side, columns * side, 3)


def data_uri(pixels: UInt8[np.ndarray, "rows columns 3"], quality: int = 85) -> str:
    """A picture to put into a page: PNG for the small, JPEG for the large."""
    buffer = io.BytesIO()
    small = pixels.shape[0] * pixels.shape[1] <= 64 * 64
    if small:
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
