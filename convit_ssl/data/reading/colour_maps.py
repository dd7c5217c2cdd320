"""Colours for people who look at images of one channel, or of stains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from convit_ssl.data.reading.pixels import Pixels
from convit_ssl.errors import UserError

Colour = tuple[float, float, float]
_BLUE, _GREEN, _RED = (0.2, 0.3, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)
_YELLOW, _MAGENTA = (1.0, 1.0, 0.0), (1.0, 0.0, 1.0)
# Fluorophores by the colours that microscopes show them in.
_STAINS: tuple[tuple[str, Colour], ...] = (
    (r"dapi|hoechst|bfp|alexa ?(fluor)? ?(350|405)|af(350|405)", _BLUE),
    (r"e?gfp|fitc|calcein|alexa ?(fluor)? ?488|af488|cy2", _GREEN),
    (r"e?yfp|venus|alexa ?(fluor)? ?(514|532)", _YELLOW),
    (r"tritc|rfp|m?cherry|tdtomato|cy3|texas ?red|rhodamine|alexa ?(fluor)? ?5(46|55|61|68|94)"
     r"|af5(46|55|68|94)", _RED),
    (r"cy5|far ?red|alexa ?(fluor)? ?6(33|47)|af6(33|47)", _MAGENTA),
)  # fmt: skip


def stain_colours(names: Sequence[Any]) -> list[Colour] | None:
    """A colour for each channel that is called after a stain; None where one of them is not."""
    found = []
    for name in names:
        text = re.sub(r"[-_]", " ", str(name).lower()).strip()
        colour = next((c for stains, c in _STAINS if re.fullmatch(stains, text)), None)
        if colour is None:
            return None
        found.append(colour)
    return found or None


def composite(parts: Sequence[Pixels], colours: Sequence[Colour]) -> Pixels:
    """(H, W, 3): channels of 8 bits (H, W) as light of their colours, added up."""
    total = np.zeros((*parts[0].shape, 3), np.float32)
    for part, colour in zip(parts, colours, strict=True):
        total += part[..., None].astype(np.float32) * np.array(colour, np.float32)
    made: Pixels = np.rint(np.clip(total, 0, 255)).astype(np.uint8)
    return made


def check_colour_map(name: str | None) -> None:
    """Refuse a colour map that matplotlib does not have.

    Raises:
        UserError: with some that it has.
    """
    if name is None:
        return
    from matplotlib import colormaps

    if name not in colormaps:
        raise UserError(
            f"--colour-map {name}: matplotlib has no such map; use viridis, magma, inferno, "
            "cividis, turbo, gray or another of its names"
        )


def coloured(grey: Pixels, name: str) -> Pixels:
    """(H, W, 3) of a grey image (H, W) of 8 bits in one of matplotlib's colour maps."""
    from matplotlib import colormaps

    table = np.rint(255 * colormaps[name](np.arange(256))[:, :3]).astype(np.uint8)
    made: Pixels = table[grey]
    return made
