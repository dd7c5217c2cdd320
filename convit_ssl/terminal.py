"""The one place through which rich prints: names are shown as they are, never as markup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from convit_ssl.printable import printable
from convit_ssl.starting import spoke


class Terminal(Console):
    """rich's console without markup, emoji codes and highlighting; it takes the same arguments.

    Control characters are spelled out, in text, tables and bars.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as styled text."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments of anything that can be printed."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, and note that something was said."""
        super().print(*objects, **options)
        spoke()

    def on_broken_pipe(self) -> None:
        """Leave it to the command, whose exit code is then that of any other command's."""
        raise BrokenPipeError
