"""Words of a command line, before argparse sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

# Options that take several numbers.
_SEVERAL = ("--img-size", "--mean", "--std")


def join_numbers(arguments: Sequence[str]) -> list[str]:
    """``--img-size 128 512`` as ``--img-size 128,512``.

    argparse would let an option of several words swallow the checkpoint behind it.
    """
    joined: list[str] = []
    most: int = 0
    kind: Callable[[str], Any] = float
    for word in arguments:
        if word in _SEVERAL:
            joined.append(word)
            most, kind = (2, int) if word == "--img-size" else (64, float)
        elif most and _is(kind, word):
            first = joined[-1] in _SEVERAL
            joined[-1:] = [joined[-1], word] if first else [f"{joined[-1]},{word}"]
            most -= 1
        else:
            joined.append(word)
            most = 0
    return joined


def _is(kind: Callable[[str], Any], word: str) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True
