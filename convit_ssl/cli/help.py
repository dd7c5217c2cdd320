"""How every command prints its options."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Any


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """argparse's layout, with the default of each option and words that stay whole.

    A help text that mentions its default itself is printed as it is.
    """

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, _written(action.default)
        if text is None or not action.option_strings or not default or "default" in text:
            return text
        if text.endswith(")"):
            return f"{text[:-1]}; default: {default})"
        return f"{text} (default: {default})"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def sentence(summary: str) -> str:
    """A summary as a sentence, wrapped to the terminal as argparse wraps its own text."""
    whole = summary[0].upper() + summary[1:].rstrip(".") + "."
    return textwrap.fill(whole, shutil.get_terminal_size().columns - 2)


def _written(default: Any) -> str:
    """A default as one would type it; empty where an option has none, as a switch."""
    if default is None or default is False or default == argparse.SUPPRESS:
        return ""
    if default is True:
        return "on"
    values = default if isinstance(default, list | tuple) else [default]
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values).replace("%", "%%")
