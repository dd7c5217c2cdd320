"""Values of options, refused where they cannot be meant, before anything is computed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit_ssl.errors import UserError

# Options that name what a command writes.
OUTPUTS = ("json", "confusion", "out", "output", "figure", "markdown", "record", "cache")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0)


def above_zero(text: str) -> float:
    """A number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def share(text: str) -> float:
    """A number between 0 and 1, neither of them."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def device(text: str) -> str:
    """A device of PyTorch's that is there."""
    import torch

    try:
        wanted = torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(str(error).splitlines()[0][:200]) from None
    # Asked, not tried: a process that has used a GPU cannot hand it to processes it forks.
    backend = getattr(torch, wanted.type, None)
    if wanted.type != "cpu" and not (backend and backend.is_available()):
        raise argparse.ArgumentTypeError(f"this machine has no {wanted.type} device")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"{text}: there are {torch.cuda.device_count()} GPUs")
    return text


class Renamed(argparse.Action):
    """An option's old name, which keeps working for one release and says the new one."""

    def __init__(self, option_strings: Sequence[str], dest: str, new: str, **more: Any) -> None:
        super().__init__(option_strings, dest, help=argparse.SUPPRESS, **more)
        self.new = new

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Set the new option's value."""
        note = f"note: {option_string} has been renamed to {self.new}; the old name will be removed"
        print(note, file=sys.stderr)
        setattr(namespace, self.dest, values)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse a place that cannot be written to before the work is done.

    Raises:
        UserError: with the option and the folder.
    """
    for name in OUTPUTS:
        value = getattr(args, name, None)
        if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
            continue
        path = Path(value)
        nearest = path.absolute()
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        into = nearest != path.absolute()
        if into and not nearest.is_dir():
            raise UserError(f"--{name} {path}: {nearest} is a file, not a folder")
        if not os.access(nearest, os.W_OK):
            raise UserError(f"--{name} {path}: {nearest} cannot be written to")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value
