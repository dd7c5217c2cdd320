"""Channels that a person asks to see, by number or by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convit_ssl.errors import UserError

# Of photographs, whose files name no channels.
RGB_NAMES = ("R", "G", "B")
_FULL_NAMES = {"r": "red", "g": "green", "b": "blue"}


def parse_show(text: str) -> tuple[int | str, ...]:
    """``3,2,1`` or ``nir,red,green``: numbers counted from 0, names as they are.

    Raises:
        UserError: anything but one channel or three.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (1, 3) or not all(parts) or "0" in parts:
        raise UserError(
            f"--show {text}: give one channel or three, by number (the first is 1) or by name, "
            "such as 3,2,1 or nir,red,green"
        )
    return tuple(int(part) - 1 if part.isdecimal() else part for part in parts)


def find_shown(show: Sequence[int | str], names: Sequence[Any], channels: int) -> tuple[int, ...]:
    """The places of channels, from 0 on.

    Args:
        show: as `parse_show` gives them.
        names: of the channels; empty where the files give none.
        channels: how many there are.

    Raises:
        UserError: a channel is unknown; the message lists the known ones.
    """
    return tuple(_place(one, names, channels, show) for one in show)


def _place(
    wanted: int | str, names: Sequence[Any], channels: int, show: Sequence[int | str]
) -> int:
    if isinstance(wanted, int):
        if wanted < channels:
            return wanted
    else:
        for spelling in (_plain, _colour):
            found = [spelling(name) for name in names]
            if spelling(wanted) in found:
                return found.index(spelling(wanted))
    text = ",".join(_written(one) for one in show)
    raise UserError(
        f"--show {text}: there is no channel {_written(wanted)}; "
        f"{_those_there_are(names, channels)}"
    )


def _plain(name: Any) -> str:
    return str(name).strip().lower()


def _colour(name: Any) -> str:
    """Names of photographs in full, so that ``red`` finds R and the reverse."""
    return _FULL_NAMES.get(_plain(name), _plain(name))


def _written(wanted: int | str) -> str:
    return str(wanted + 1) if isinstance(wanted, int) else wanted


def _those_there_are(names: Sequence[Any], channels: int) -> str:
    if len(names) == channels:
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
        return f"the images have {listed}"
    if channels == 1:
        return "the images have one channel, number 1"
    return f"the images have {channels} channels without names; give numbers from 1 to {channels}"
