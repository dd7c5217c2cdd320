"""Colours that the colour-blind can tell apart, on light and dark ground."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

# Okabe and Ito (2008), "Color Universal Design", without black; the yellow is darkened so that
# it can be seen on white.
CATEGORICAL = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B59F00")

# Nine stops of viridis (matplotlib, CC0): monotonic in lightness.
VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    dtype=float,
)


def colour(values: np.ndarray) -> UInt8[np.ndarray, "... 3"]:
    """Viridis for values in 0..1, clipped outside."""
    place = np.clip(values, 0, 1) * (len(VIRIDIS) - 1)
    low = np.minimum(place.astype(int), len(VIRIDIS) - 2)
    part = (place - low)[..., None]
    mixed = VIRIDIS[low] * (1 - part) + VIRIDIS[low + 1] * part
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def layer_colour(layer: int, layers: int) -> str:
    """A colour along viridis, its brightest end left out, for an ordered set of curves."""
    red, green, blue = colour(np.array(0.88 * layer / max(layers - 1, 1)))
    return f"#{red:02x}{green:02x}{blue:02x}"
