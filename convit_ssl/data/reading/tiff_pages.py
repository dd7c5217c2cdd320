"""Which page of a TIFF is the image: not one that says of itself that it is a thumbnail or a mask.

Libraries show the first page, whatever it is. `shown_file` gives them a file whose first page is
the image.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import IO

from convit_ssl.data.notes import note_once

_KIND, _OLD_KIND, _SUB_DIRECTORIES = 254, 255, 330  # tags of TIFF 6.0 and of its supplement 1
_REDUCED, _MASK = 1, 4  # bits of the kind
_OLD_REDUCED = 2
_MOST_PAGES = 10_000
_LETTERS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of whole numbers


@dataclass(frozen=True)
class _Layout:
    """How numbers and places are written in a file."""

    order: str
    big: bool

    @classmethod
    def of(cls, start: bytes) -> _Layout:
        """By the first four bytes of a TIFF."""
        return cls("<" if start[:2] == b"II" else ">", start[2:4] in (b"+\0", b"\0+"))

    @property
    def first(self) -> int:
        """Where the place of the first page stands."""
        return 8 if self.big else 4

    @property
    def place(self) -> str:
        return f"{self.order}{'Q' if self.big else 'I'}"

    @property
    def count(self) -> str:
        return f"{self.order}{'Q' if self.big else 'H'}"


@dataclass(frozen=True)
class _Page:
    place: int
    following: int
    aside: bool
    inner: tuple[int, ...]


def shown_page(file: IO[bytes]) -> int | None:
    """Where the first page begins that is neither reduced nor a mask.

    Args:
        file: a TIFF; it is left anywhere.

    Returns:
        Its offset in bytes. None if that is the first page of the file, or if no page qualifies;
        the first page is shown then, with one warning.
    """
    file.seek(0)
    start = file.read(16)
    layout = _Layout.of(start)
    try:
        (place,) = struct.unpack_from(layout.place, start, layout.first)
        first = _read(file, layout, place)
        if not first.aside:
            return None
        found = _first_shown(file, layout, first)
    except (struct.error, OSError, OverflowError, ValueError):
        return None  # damaged: whoever reads the first page says how
    if found is None:
        note_once(
            "TIFF files whose pages all say that they are reduced copies or masks are read by "
            "their first page"
        )
    return found


def shown_file(data: bytes) -> bytes:
    """A file of any format; a TIFF begins with the page of `shown_page`."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return data
    place = shown_page(io.BytesIO(data))
    if place is None:
        return data
    layout = _Layout.of(data[:4])
    moved = struct.pack(layout.place, place)
    return data[: layout.first] + moved + data[layout.first + len(moved) :]


def _first_shown(file: IO[bytes], layout: _Layout, page: _Page) -> int | None:
    """After a page that is not shown: first those within it, then those that follow."""
    seen = {page.place}
    ahead = [*page.inner, page.following]
    while ahead and len(seen) < _MOST_PAGES:
        place = ahead.pop(0)
        if place == 0 or place in seen:
            continue
        seen.add(place)
        page = _read(file, layout, place)
        if not page.aside:
            return page.place
        ahead += [*page.inner, page.following]
    return None


def _read(file: IO[bytes], layout: _Layout, place: int) -> _Page:
    file.seek(place)
    (count,) = struct.unpack(layout.count, file.read(struct.calcsize(layout.count)))
    size = 20 if layout.big else 12
    if count > 65535:
        raise ValueError(f"a page of {count} tags")
    entries = file.read(count * size)
    (following,) = struct.unpack(layout.place, file.read(struct.calcsize(layout.place)))
    kind = old = 0
    inner: tuple[int, ...] = ()
    for at in range(0, len(entries), size):
        entry = entries[at : at + size]
        (tag,) = struct.unpack_from(f"{layout.order}H", entry)
        if tag == _KIND:
            kind = _numbers(file, layout, entry)[0]
        elif tag == _OLD_KIND:
            old = _numbers(file, layout, entry)[0]
        elif tag == _SUB_DIRECTORIES:
            inner = _numbers(file, layout, entry)
    aside = bool(kind & (_REDUCED | _MASK)) or old == _OLD_REDUCED
    return _Page(place, following, aside, inner if aside else ())


def _numbers(file: IO[bytes], layout: _Layout, entry: bytes) -> tuple[int, ...]:
    """The whole numbers of a tag, within its entry or elsewhere in the file."""
    _, kind = struct.unpack_from(f"{layout.order}HH", entry)
    (count,) = struct.unpack_from(layout.place, entry, 4)
    form = f"{layout.order}{min(count, _MOST_PAGES)}{_LETTERS.get(kind, 'I')}"
    size, room = struct.calcsize(form), entry[4 + struct.calcsize(layout.place) :]
    if size <= len(room):
        return struct.unpack_from(form, room) or (0,)
    file.seek(struct.unpack(layout.place, room)[0])
    return struct.unpack(form, file.read(size))
