"""Values that are chosen for a collection, each with its reason; what the user gives wins."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from convit_ssl.errors import UserError

Value: TypeAlias = int | float | str | tuple[int | float, int | float] | None


@dataclass(frozen=True)
class Choice:
    """A value, and the reason for it in words for the user."""

    value: Value
    reason: str

    @property
    def given(self) -> bool:
        """Whether the user chose it, not the rule."""
        return self.reason.startswith("given (the rule says ")

    @property
    def written(self) -> str:
        """The value as options are written."""
        return "null" if self.value is None else f"{self.value}"


@dataclass
class Chooser:
    """Collects choices; a value given by the user wins, with its own reason."""

    overrides: Mapping[str, Value]
    choices: dict[str, Choice] = field(default_factory=dict)

    def whole(self, name: str, value: int, reason: str) -> int:
        """A choice of a whole number; what later choices build on."""
        chosen = self.pick(name, value, reason)
        if not isinstance(chosen, int | float) or chosen != int(chosen) or chosen < 0:
            raise UserError(f"{name}={chosen}: give a whole number, for example {name}={value}")
        return int(chosen)

    def pick(self, name: str, value: Value, reason: str) -> Value:
        """A choice of any kind."""
        given = name in self.overrides
        chosen = self.overrides[name] if given else value
        because = f"given (the rule says {text(value)}: {reason})" if given else reason
        self.choices[name] = Choice(chosen, because)
        return chosen

    def number(self, name: str) -> int | float:
        """What was chosen before."""
        value = self.choices[name].value
        assert isinstance(value, int | float)
        return value


def text(value: Value) -> str:
    """A value in words for the user."""
    if value is None:
        return "null"
    return f"{value[0]} to {value[1]}" if isinstance(value, tuple) else f"{value}"
