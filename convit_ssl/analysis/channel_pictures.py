"""Images of any number of channels in a report: three of them are shown, the network sees all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convit_ssl.data.augment.channels import resize_channels
from convit_ssl.data.reading.colour_maps import coloured, composite, stain_colours

# Share of the pixels at either end that are cut off for display.
_CUT = 0.5


class ChannelPicture:
    """An (H, W, C) float array with what a page asks of a Pillow image.

    Args:
        array: values as `read_channels` gives them.
        shown: channels, from 0 on, that are shown as red, green and blue; one is shown in grey.
        window: whether 0 and 1 are the ends of a window, to be shown as black and white.
        names: of all channels, as far as they have any: those called after stains are shown in
            the colours of these, unless channels were chosen.
        colour_map: of matplotlib, for a single channel.
        width_mm: of the whole picture; None where the file does not say.
    """

    def __init__(
        self, array: npt.NDArray[np.float32], shown: Sequence[int] | None = None,
        window: bool = False, names: Sequence[Any] = (), colour_map: str | None = None,
        width_mm: float | None = None,
    ) -> None:  # fmt: skip
        self.array = array
        self.names, self.window, self.colour_map = names, window, colour_map
        self.width_mm = width_mm
        channels = array.shape[-1]
        stains = stain_colours(names) if channels > 1 and len(names) == channels else None
        self.stains = None if shown else stains
        everything = tuple(range(channels))
        self.shown = tuple(shown) if shown else everything if stains else usual_channels(channels)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as Pillow has it."""
        return self.array.shape[1], self.array.shape[0]

    def resize(self, size: tuple[int, int], *_filter: Any, **_options: Any) -> ChannelPicture:
        """The same at another (width, height)."""
        array = resize_channels(self.array, (size[1], size[0]), "bilinear")
        shown = None if self.stains else self.shown
        return ChannelPicture(array, shown, self.window, self.names, self.colour_map, self.width_mm)

    def convert(self, mode: str) -> Image.Image:
        """The shown channels as 8 bits; each from its darkest to its brightest without a window."""
        parts = [self._eight_bits(self.array[..., place]) for place in self.shown]
        if self.stains:
            return Image.fromarray(composite(parts, self.stains)).convert(mode)
        if len(parts) == 1 and self.colour_map:
            return Image.fromarray(coloured(parts[0], self.colour_map)).convert(mode)
        parts = parts * 3 if len(parts) == 1 else parts
        parts += [np.zeros_like(parts[0])] * (3 - len(parts))
        return Image.fromarray(np.stack(parts[:3], axis=-1)).convert(mode)

    def _eight_bits(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        low, high = (0.0, 1.0) if self.window else np.percentile(values, (_CUT, 100 - _CUT))
        share = (values - low) / max(float(high - low), 1e-12)
        return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)


Shown = Image.Image | ChannelPicture


def usual_channels(channels: int) -> tuple[int, ...]:
    """The first three, or as many as there are."""
    return tuple(range(min(3, channels)))


def describe_shown(
    shown: Sequence[int],
    names: Sequence[Any] = (),
    stains: bool = False,
    colour_map: str | None = None,
) -> str:
    """What the page says of the channels on it."""
    known = [str(names[place]) if place < len(names) else f"channel {place + 1}" for place in shown]
    if stains:
        return "shown: " + ", ".join(known) + " in the colours of these stains"
    if len(known) == 1:
        named = "" if known[0] == "grey" else f"{known[0]} "
        return f"shown: {named}in {colour_map or 'grey'}"
    colours = ("red", "green", "blue")
    pairs = (f"{name} as {colour}" for name, colour in zip(known, colours, strict=False))
    return "shown: " + ", ".join(pairs)
