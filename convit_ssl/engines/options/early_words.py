"""A misspelled option is refused at once, before PyTorch takes its seconds to import.

Composing an experiment needs the registered methods, which are PyTorch modules. The sections that
belong to no method are known without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from convit_ssl.engines.options.words import hint
from convit_ssl.errors import UserError
from convit_ssl.schema import Experiment

OURS = "config=convit_"


def refuse_unknown(arguments: Sequence[str]) -> None:
    """Check the keys of our experiments that belong to no method.

    Args:
        arguments: ``config=NAME`` and ``key=value``; VISSL's own configurations are left alone.

    Raises:
        UserError: names the key and the nearest that exists.
    """
    if not any(argument.startswith(OURS) for argument in arguments):
        return
    kinds: dict[str, Any] = {
        field.name: field.default_factory for field in dataclasses.fields(Experiment)
    }
    sections = {
        name: {inner.name for inner in dataclasses.fields(kind)}
        for name, kind in kinds.items()
        if dataclasses.is_dataclass(kind) and name != "method"  # whose keys depend on which it is
    }
    valid = [f"{section}.{name}" for section, names in sections.items() for name in sorted(names)]
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        section, dot, name = key.partition(".")
        known = name.partition(".")[0] in sections.get(section, {name.partition(".")[0]})
        if equals and dot and not known:
            raise UserError(f"unknown option {key!r}{hint(key, valid)}")
