"""``config=convit_auto`` on a command line: what may stand beside it, and what takes its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convit_ssl.engines.options.words import hint
from convit_ssl.errors import UserError
from convit_ssl.methods import self_supervised
from convit_ssl.schema_auto import METHODS

EXPERIMENT = "convit_auto"
CHOICE = f"config={EXPERIMENT}"
SECTION = "auto."


def is_auto(choices: Sequence[str]) -> bool:
    """Whether a race is to choose the method."""
    return CHOICE in choices


def provisional(choices: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """The choices with the first candidate's experiment, until the race is over.

    Raises:
        UserError: a method or an option of one is given, or an unknown candidate.
    """
    given = [choice for choice in choices if choice.startswith("method=")]
    given += [f"{key}=..." for key in values if key == "teacher" or key.startswith("method.")]
    if given:
        raise UserError(
            f"{given[0]} cannot be given with {CHOICE}, which chooses the method itself. Name the "
            f"candidates with auto.methods=[simclr,vicreg], or take config=convit_NAME and set it "
            f"there"
        )
    name = named_methods(values.get("auto.methods", METHODS))[0]
    return [f"config=convit_{name}" if choice == CHOICE else choice for choice in choices]


def refuse_without_race(values: Mapping[str, Any]) -> None:
    """Refuse options of the race where none is run.

    Raises:
        UserError: names the option.
    """
    given = next((key for key in values if key.startswith(SECTION)), None)
    if given is not None:
        raise UserError(f"{given} only has an effect with {CHOICE}; leave it out")


def named_methods(given: Any) -> tuple[str, ...]:
    """The candidates of ``auto.methods``, each once.

    Raises:
        UserError: there is none, or one is unknown or needs labels.
    """
    listed = given.strip("[] ").split(",") if isinstance(given, str) else given or ()
    names = tuple(dict.fromkeys(str(name).strip() for name in listed))
    if not names or names == ("",):
        raise UserError("auto.methods is empty; name the candidates, such as [simclr,vicreg]")
    known = self_supervised()
    for name in names:
        if name not in known:
            raise UserError(
                f"auto.methods: unknown method {name!r}{hint(name, known)} "
                f"(available: {', '.join(known)})"
            )
    return names


def candidate_words(
    arguments: Sequence[str], method: str, settings: Sequence[str] = ()
) -> list[str]:
    """The plain command line of a candidate.

    Args:
        arguments: with ``config=convit_auto``.
        method: in its place.
        settings: further options, as they are written.
    """
    kept = [word for word in arguments if not word.startswith(SECTION)]
    return [f"config=convit_{method}" if word == CHOICE else word for word in kept] + [*settings]


def written(value: Any) -> str:
    """A value as a command line has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(written(one) for one in value)}]"
    return str(value)
