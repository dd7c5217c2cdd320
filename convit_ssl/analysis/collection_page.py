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
:root { color-scheme: light dark; --line: #dde1e6; --soft: #57606a; --text: #1a1d21;
  --back: #f5f6f8; --card: #fff; --bad: #b3261e; --good: #17713c; }
@media (prefers-color-scheme: dark) { :root { --line: #30363d; --soft: #9aa4af; --text: #e6e9ed;
  --back: #101418; --card: #1a1f25; --bad: #ff8a7a; --good: #58d68d; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0; padding: 1.5rem 1rem;
  color: var(--text); background: var(--back); }
main { max-width: 72rem; margin: auto; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .8rem;
  padding: 1.1rem 1.2rem; margin-top: 1.1rem; overflow-x: auto; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem 1.2rem .25rem 0;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 400; } tbody th { font-weight: 400; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; border: 1px solid var(--line); border-radius: .4rem; }
figure div { display: flex; gap: .5rem; }
figure img { width: 112px; height: 112px; object-fit: contain; background: #8882;
  image-rendering: auto; }
figcaption { font-size: .82rem; overflow-wrap: anywhere; margin-top: .4rem; }
.bad, .good { font-weight: 600; font-size: 1.1rem; border-left: 4px solid; padding-left: .8rem; }
.bad { color: var(--bad); } .good { color: var(--good); }
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
    verdict = summary[0][:1].upper() + summary[0][1:]
    parts = [f'<p class="{tone}">{html.escape(verdict)}.</p>']
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
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{html.escape(title)}</h1>\n"
        f"{body}\n</main>\n</body>\n</html>\n",
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
            name = tag if position else "th"
            about = " class=number" if position else " scope=row" if tag == "td" else " scope=col"
            made.append(f"<{name}{about}>{text}</{name}>")
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
