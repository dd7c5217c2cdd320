"""A list of file names in two arrays.

ImageNet's 1.3 million names as Python strings take 150 MB, which every loader worker
comes to hold a copy of, since reading one writes its reference count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt


def some(names: Sequence[str], most: int = 10) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def as_label(name: str) -> str:
    """A name as a figure can show it.

    Bytes of a file name that are no UTF-8 become a replacement sign, and dollars stay dollars:
    for matplotlib two of them would enclose mathematics.
    """
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return shown.replace("$", r"\$")


class NameTable(Sequence[str]):
    """Read-only strings; equal to any sequence of the same strings.

    Args:
        names: what to hold.
        prefix: put before each name that is read.
    """

    def __init__(self, names: Sequence[str], prefix: str = "") -> None:
        self.prefix = prefix
        self._bytes: npt.NDArray[np.uint8]
        self._ends: npt.NDArray[np.int64]
        if isinstance(names, NameTable):
            self._bytes, self._ends = names._bytes, names._ends
            return
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # negative ones, and the IndexError
        part: bytes = self._bytes[self._ends[position] : self._ends[position + 1]].tobytes()
        return self.prefix + part.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for position in range(len(self)):
            yield self[position]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(name) for name in self[:3])
        return f"NameTable({len(self)} names: {shown}{', ...' if len(self) > 3 else ''})"
