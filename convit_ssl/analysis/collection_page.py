"""A page about a collection: duplicates and bad images with thumbnails, and counts."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from convit_ssl.analysis.page import write_text

THUMBNAIL = 112  # pixels
MOST_SHOWN = 200  # findings of a kind on the page; all are in the CSV

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --muted: #8888; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .15rem .9rem .15rem 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; border: 1px solid var(--line); border-radius: .4rem; }
figure div { display: flex; gap: .5rem; }
figure img { width: 112px; height: 112px; object-fit: contain; background: #8882;
  image-rendering: auto; }
figcaption { font-size: .82rem; overflow-wrap: anywhere; margin-top: .4rem; }
.bad { color: #c0392b; font-weight: 600; } .good { color: #1e8449; font-weight: 600; }
.muted { color: gray; }
@media (prefers-color-scheme: dark) { .bad { color: #ff7b6b; } .good { color: #58d68d; } }
"""


@dataclass(frozen=True)
class Card:
    """One finding on the page.

    Attributes:
        images: one or two positions.
        caption: lines of plain text below the pictures.
    """

    images: Sequence[int]
    caption: Sequence[str]


@dataclass(frozen=True)
class Section:
    """Findings of one kind."""

    title: str
    text: str
    cards: Sequence[Card] = field(default=())


@dataclass(frozen=True)
class CountTable:
    """A table of numbers: the header and rows of cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | int]]


def write_collection_page(
    path: Path,
    title: str,
    summary: Sequence[str],
    clean: bool,
    tables: Sequence[CountTable],
    sections: Sequence[Section],
    load: Callable[[int], Image.Image | None],
) -> None:
    """Write the page, with every picture inside.

    Args:
        path: of the HTML file.
        title: at its top.
        summary: sentences below it.
        clean: whether nothing was found.
        tables: counts.
        sections: findings.
        load: the Pillow image at a position, None where it cannot be read.
    """
    pictures: dict[int, str] = {}

    def picture(position: int) -> str:
        if position not in pictures:
            pictures[position] = _data_url(load(position))
        return pictures[position]

    tone = "good" if clean else "bad"
    parts = [f'<p class="{tone}">{html.escape(summary[0])}</p>']
    parts += [f"<p>{html.escape(text)}</p>" for text in summary[1:]]
    parts += [_section(section, picture) for section in sections if section.cards]
    parts += [_table(table) for table in tables if table.rows]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    body = "\n".join(parts)
    write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<link rel="icon" href="data:,">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n"
        f"{body}\n</body>\n</html>\n",
    )


def _section(section: Section, picture: Callable[[int], str]) -> str:
    shown = section.cards[:MOST_SHOWN]
    more = len(section.cards) - len(shown)
    text = section.text + (f" {more:,} more are in the CSV file." if more else "")
    cards = []
    for card in shown:
        images = "".join(f'<img alt="" src="{picture(position)}">' for position in card.images)
        lines = "<br>".join(html.escape(line) for line in card.caption)
        cards.append(f"<figure><div>{images}</div><figcaption>{lines}</figcaption></figure>")
    return (
        f"<section><h2>{html.escape(section.title)} ({len(section.cards):,})</h2>"
        f'<p>{html.escape(text)}</p><div class="grid">{"".join(cards)}</div></section>'
    )


def _table(table: CountTable) -> str:
    def cells(row: Sequence[str | int], tag: str) -> str:
        made = []
        for position, cell in enumerate(row):
            text = f"{cell:,}" if isinstance(cell, int) else html.escape(cell)
            made.append(f"<{tag}{' class=number' * (position > 0)}>{text}</{tag}>")
        return "<tr>" + "".join(made) + "</tr>"

    rows = "".join(cells(row, "td") for row in table.rows)
    return (
        f"<section><h2>{html.escape(table.title)}</h2><table><thead>"
        f"{cells(table.header, 'th')}</thead><tbody>{rows}</tbody></table></section>"
    )


def _data_url(image: Image.Image | None) -> str:
    """A thumbnail as a data URL; a grey square where the image cannot be read."""
    small = Image.new("RGB", (THUMBNAIL, THUMBNAIL), (128, 128, 128))
    if image is not None:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
