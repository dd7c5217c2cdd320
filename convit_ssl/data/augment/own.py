"""Augmentations of the user's own, by the name under which a plugin registered them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from convit_ssl.errors import UserError

Pixels: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"
Change: TypeAlias = "Callable[[Pixels, np.random.Generator], Pixels]"

REGISTERED: dict[str, Change] = {}


def register_augmentation(name: str) -> Callable[[Change], Change]:
    """Decorator for a change of views, switched on by ``augmentation.own=[name]``.

    The function takes a view after all published changes, uint8 (height, width, 3), or (height,
    width) where the images have no colour, and a random generator; it gives a view of the same
    shape and type. What it draws from that generator alone is the same when a run is resumed.
    """

    def register(function: Change) -> Change:
        REGISTERED[name] = function
        return function

    return register


def check_own(names: Sequence[str], pipeline: str) -> None:
    """Refuse names that nobody registered, and pipelines that cannot run them.

    Raises:
        UserError: says what to do.
    """
    for name in names:
        if name not in REGISTERED:
            known = ", ".join(REGISTERED) or "none"
            raise UserError(
                f"augmentation.own={name}: no plugin registered it (registered: {known}); name its "
                "module with plugins="
            )
    if names and pipeline != "fast":
        raise UserError(f"augmentation.own works with augment=fast, not augment={pipeline}")


def apply_own(pixels: Pixels, names: Sequence[str], seed: int) -> Pixels:
    """A view after the user's changes, in their order.

    Args:
        pixels: uint8 (height, width, 3) or (height, width).
        names: registered ones.
        seed: of this view.

    Raises:
        UserError: one gives another shape or type.
    """
    for number, name in enumerate(names):
        changed = REGISTERED[name](pixels, np.random.default_rng((seed % 2**63, number)))
        if getattr(changed, "shape", None) != pixels.shape or changed.dtype != np.uint8:
            raise UserError(
                f"augmentation.own={name} must return a uint8 array of the shape of its input, "
                f"{pixels.shape}"
            )
        pixels = np.ascontiguousarray(changed)
    return pixels
