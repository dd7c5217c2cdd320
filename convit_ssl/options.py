"""What an option is: a field of a dataclass that says what it means and what it may be.

    @dataclass
    class OptimOptions:
        epochs: int = option(100, "Length of the run.", unit="epochs", least=1)

Everything that lists, checks or documents options reads these fields. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

KEY = "convit_ssl"
RANGE = "[smallest, largest]"  # form of a list of two numbers in that order

if TYPE_CHECKING:
    PerView = float | list[float] | None
    Channels = str | list[int | str] | None
    Window = str | list[float] | None
    Ranges = list[list[float]] | None
    Scales = int | list[int] | None
    Length = str | float | None
    Pretrained = bool | str | None
else:  # OmegaConf has no unions with lists, and takes numbers for strings
    PerView = Channels = Window = Ranges = Scales = Length = Pretrained = Any

OPEN_TYPES = {
    "PerView": "float | list[float] | None",
    "Channels": "str | list[int | str] | None",
    "Window": "str | list[float] | None",
    "Ranges": "list[list[float]] | None",
    "Scales": "int | list[int] | None",
    "Length": "str | float | None",
    "Pretrained": "bool | str | None",
}
"""Types that options are documented with, and checked by themselves."""


@dataclass(frozen=True)
class Option:
    """The description of an option.

    Attributes:
        says: one or two sentences.
        unit: of a number, such as epochs or pixels; None for a number without one.
        least, most: bounds of a number, or of each number of a list; they may be reached.
        above: a bound that may not be reached.
        choices: all values it can have, where they can be listed.
        form: what a value looks like, where numbers and choices do not say it.
        per_view: one number for all views, or a list with one for each kind of view.
        numbers: how many numbers a list has; None for any number.
    """

    says: str
    unit: str | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    form: str | None = None
    per_view: bool = False
    numbers: int | None = None

    @property
    def bounds(self) -> str:
        """The range of a number in words, such as ``from 0 to 1``; empty without one."""
        if self.least is not None and self.most is not None:
            return f"from {self.least:g} to {self.most:g}"
        if self.above is not None:
            end = "" if self.most is None else f", at most {self.most:g}"
            return f"more than {self.above:g}{end}"
        if self.least is not None:
            return f"{self.least:g} or more"
        return "" if self.most is None else f"at most {self.most:g}"

    def allows(self, value: float) -> bool:
        """Whether a number is in the range."""
        low = -math.inf if self.least is None else self.least
        high = math.inf if self.most is None else self.most
        return low <= value <= high and (self.above is None or value > self.above)


@dataclass(frozen=True)
class Described:
    """An option in its place.

    Attributes:
        key: dotted, such as ``optim.epochs``.
        type: as it is written in Python.
        default: in the schema; experiments set others.
        option: its description.
        method: the method that has it; None where all have.
    """

    key: str
    type: str
    default: Any
    option: Option
    method: str | None = None

    @property
    def range(self) -> str:
        """Which values are allowed, in words."""
        option, kinds = self.option, [kind.strip() for kind in self.type.split("|")]
        if option.choices:
            words = ", ".join(option.choices)
        elif option.form:
            words = f"{option.form}; {option.bounds}" if option.bounds else option.form
        elif "bool" in kinds:
            words = "true or false"
        else:
            words = option.bounds
        if option.per_view:
            words += ", or a list with one per kind of view"
        return f"{words}, or null" if "None" in kinds and words else words


def option(
    default: Any,
    says: str,
    *,
    unit: str | None = None,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    form: str | None = None,
    per_view: bool = False,
    numbers: int | None = None,
) -> Any:
    """A dataclass field with a description; see `Option` for the arguments.

    Args:
        default: its value where nobody sets it. A list or a dict is copied for each instance.
        says: one or two sentences.
        unit: see `Option`, as for all that follow.
        least: smallest number.
        most: largest number.
        above: a bound that may not be reached.
        choices: all values.
        form: what a value looks like.
        per_view: one number, or a list of them.
        numbers: how many numbers a list has.
    """
    metadata = {KEY: Option(says, unit, least, most, above, choices, form, per_view, numbers)}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: default.copy(), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(kind: type) -> Any:
    """A dataclass field that holds a section of options."""
    return dataclasses.field(default_factory=kind)


def described(kind: type, prefix: str = "", method: str | None = None) -> Iterator[Described]:
    """The options of a dataclass and of its sections, in the order in which they are written.

    Args:
        kind: the dataclass.
        prefix: of the keys, such as ``method.``.
        method: the method that has these options.
    """
    for field in dataclasses.fields(kind):
        default = _default(field)
        if dataclasses.is_dataclass(default):
            yield from described(type(default), f"{prefix}{field.name}.", method)
        elif (found := field.metadata.get(KEY)) is not None:
            kind_of: Any = field.type
            plain = isinstance(kind_of, type) and not get_args(kind_of)
            name = kind_of.__name__ if plain else str(kind_of)
            shown = OPEN_TYPES.get(name, name)
            yield Described(f"{prefix}{field.name}", shown, default, found, method)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def undescribed(kind: type) -> list[str]:
    """Names of fields that are neither a section nor described; ``name`` chooses a dataclass."""
    return [
        field.name
        for field in dataclasses.fields(kind)
        if KEY not in field.metadata
        and not dataclasses.is_dataclass(_default(field))
        and field.name not in ("name", "method")
    ]


def as_dict(found: Described) -> Mapping[str, Any]:
    """An option as JSON has it."""
    return {
        "key": found.key,
        "type": found.type,
        "default": found.default,
        "unit": found.option.unit,
        "range": found.range,
        "says": found.option.says,
        "method": found.method,
    }


def items(section: Any) -> list[tuple[str, Any]]:
    """Names and values of a section, be it a dataclass or the mapping that it travels as."""
    if isinstance(section, Mapping):
        return [(str(key), value) for key, value in section.items()]
    return [(each.name, getattr(section, each.name)) for each in dataclasses.fields(section)]


@dataclass
class MethodOptions:
    """The section ``method`` of an experiment; each method adds its own.

    Fields are made by `option`; ``name`` is filled in by the registry of methods.
    """

    name: str = ""
