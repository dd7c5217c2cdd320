"""What image size a trunk's position embeddings were made for."""

from __future__ import annotations

import math

from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export.keys import has_gpsa
from convit_ssl.export.stated import Stated


def settle_size(
    tensors: dict[str, Tensor],
    stated: Stated,
    asked: tuple[int, int] | None,
    patch: int,
    path: str,
    guesses: list[str],
    notes: list[str],
) -> tuple[tuple[int, int], bool, bool]:
    """Image size, whether the class token has a position, whether the user's size was used.

    Args:
        tensors: under official names.
        stated: what is known besides.
        asked: image size that the user wants.
        patch: side of a patch.
        path: of the file.
        guesses: to which a guess is added.
        notes: to which is added what was read elsewhere.

    Raises:
        UserError: their number fits no square, and nobody says what it is.
    """
    if "pos_embed" not in tensors:
        return _without_positions(stated, asked, patch, path, notes)
    count = int(tensors["pos_embed"].shape[1])
    extra = (0,) if has_gpsa(tensors) else (0, 1)
    for size in stated.sizes:
        found = _fits(size, count, patch, extra)
        if found is not None:
            if size[0] != size[1]:
                notes.append(f"{size[0]} x {size[1]} px, from {stated.origin.get('sizes')}")
            return size, found, size == asked
    if asked is not None:
        found = _fits(asked, count, patch, extra)
        if found is not None:
            if asked[0] != asked[1] and _is_square(count - found):
                guesses.append(
                    f"its {count - found} position embeddings are taken as {asked[0] // patch} x "
                    f"{asked[1] // patch}, as --img-size says, and not as a square"
                )
            return asked, found, True
    plain = 1 in extra and "blocks.0.attn.qkv.bias" in tensors
    with_class = 1 in extra and _is_square(count - 1) and not _is_square(count)
    if not _is_square(count) and not (with_class and plain):
        squares = f", or {count - 1} and one for the class token" if with_class else ""
        raise UserError(
            f"{path} holds {count} position embeddings, which do not form a square{squares}; give "
            f"the image size they were trained at with --img-size HEIGHT WIDTH (img_size=(height, "
            f"width) in Python)"
        )
    side = math.isqrt(count - with_class)
    oblong = _oblong(side)
    if oblong:
        guesses.append(
            f"its {side * side} position embeddings are taken as a square of {side} x {side} "
            f"({side * patch} x {side * patch} px); {oblong[0]} x {oblong[1]} are as many, and "
            "would be scrambled. --img-size HEIGHT WIDTH sets it"
        )
    return (side * patch, side * patch), with_class, False


def _without_positions(
    stated: Stated,
    asked: tuple[int, int] | None,
    patch: int,
    path: str,
    notes: list[str],
) -> tuple[tuple[int, int], bool, bool]:
    """The size of a network whose tensors do not depend on it, as `settle_size` returns it.

    Raises:
        UserError: nobody says what it is.
    """
    if asked is not None:
        return asked, False, True
    for height, width in stated.sizes:
        if height % patch == 0 and width % patch == 0:
            notes.append(f"{height} x {width} px, from {stated.origin.get('sizes')}")
            return (height, width), False, False
    raise UserError(
        f"{path} has no pos_embed. Either it was lost, and the weights are incomplete, or the "
        "network was trained without position embeddings (use_pos_embed=False). In that case the "
        "image size is unknown, and the features depend on it: give it with --img-size HEIGHT "
        "WIDTH (img_size=(height, width) in Python)"
    )


def _fits(size: tuple[int, int], count: int, patch: int, extra: tuple[int, ...]) -> bool | None:
    """Whether there is one more position than patches; None where neither fits."""
    if size[0] % patch or size[1] % patch or min(size) < patch:
        return None
    more = count - (size[0] // patch) * (size[1] // patch)
    return bool(more) if more in extra else None


def _oblong(side: int) -> tuple[int, int] | None:
    """The nearest oblong grid with as many patches as a square."""
    for rows in range(side - 1, 1, -1):
        if side * side % rows == 0:
            return rows, side * side // rows
    return None


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def square_side(count: int) -> int | None:
    """The side of a square with this number of patches, or None."""
    return math.isqrt(count) if _is_square(count) else None
