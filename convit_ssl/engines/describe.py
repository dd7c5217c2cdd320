"""All options in one list, and as text: for the terminal, for docs/OPTIONS.md and for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from convit_ssl.engines.keys import hint
from convit_ssl.errors import UserError
from convit_ssl.methods import METHODS
from convit_ssl.options import Described, as_dict, described
from convit_ssl.schema import Experiment

HEADER = """# Options

Every option of an experiment. Set one on the command line as `key=value`
(`optim.epochs=20`, `crops.global_scale=[0.2,1]`), or in a file of your own
(`config=./mine.yaml`). `null` leaves a choice to the program: to your images, the machine, or
what is published for the method. The defaults below are the program's; an experiment such as
`config=convit_dino` sets its own, and `scale_to_data` adapts them to your collection.

This page is written by `convit-ssl options --markdown`.
"""


def all_options(method: str | None = None) -> list[Described]:
    """Every option; those of one method, or of all.

    Args:
        method: whose options stand under ``method``; None for all methods.
    """
    found = list(described(Experiment))
    for name, kind in METHODS.items():
        if method in (None, name):
            found += described(kind.Options, "method.", name)
    return found


def matching(prefix: str | None) -> list[Described]:
    """Options whose key begins with a prefix: ``optim``, ``optim.l``, ``method``, ``dino``.

    Raises:
        UserError: there is none; names the nearest.
    """
    found = all_options()
    if not prefix:
        return found
    chosen = [o for o in found if o.key.startswith(prefix) or o.method == prefix]
    if not chosen:
        sections = {o.key.partition(".")[0] for o in found}
        near = hint(prefix, sorted({o.key for o in found} | sections | set(METHODS)))
        raise UserError(f"unknown option {prefix!r}{near}; `convit-ssl options` lists all")
    return chosen


def as_text(options: Iterable[Described], width: int = 80) -> str:
    """A wrapped list, two to four lines an option."""
    blocks = []
    section: str | None = None
    for found in options:
        if (title := _section(found)) != section:
            section = title
            blocks.append(title)
        head = f"  {found.key} = {_value(found.default)}"
        about = [found.option.says, f"({_facts(found)})"]
        blocks.append("\n".join([head, *(_wrapped(text, width) for text in about)]))
    return "\n\n".join(blocks)


def as_json(options: Iterable[Described]) -> str:
    """A list of objects."""
    return json.dumps([as_dict(found) for found in options], indent=2)


def as_markdown(options: Sequence[Described]) -> str:
    """The page docs/OPTIONS.md: one table for each section."""
    parts = [HEADER]
    section = None
    for found in options:
        if (title := _section(found)) != section:
            section = title
            parts.append(
                f"\n## {title}\n\n| option | default | values | meaning |\n|---|---|---|---|"
            )
        unit = f" ({found.option.unit})" if found.option.unit else ""
        cells = (
            f"`{found.key}`",
            f"`{_value(found.default)}`",
            f"{_cell(found.range)}{unit}",
            _cell(found.option.says),
        )
        parts.append(f"| {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


def _section(found: Described) -> str:
    if found.method:
        return f"method={found.method}"
    name, dot, _ = found.key.partition(".")
    return name if dot else "experiment"


def _facts(found: Described) -> str:
    unit = f"unit: {found.option.unit}; " if found.option.unit else ""
    return f"{unit}values: {found.range}"


def _value(value: Any) -> str:
    """As it is written on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_value(one) for one in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _wrapped(text: str, width: int) -> str:
    indent = " " * 6
    return textwrap.fill(
        text, max(width, 40), initial_indent=indent, subsequent_indent=indent,
        break_on_hyphens=False,
    )  # fmt: skip
