"""One HTML file from plain data: style, script and pictures inside, nothing fetched."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from convit_ssl.analysis.colours import CATEGORICAL, VIRIDIS
from convit_ssl.writing import whole_file

_REPORT = (
    "core", "charts", "verdict", "locality", "gallery", "attention", "features", "report",
)  # fmt: skip
_COMPARISON = ("core", "charts", "comparison")
_EXPLORE = ("core", "explore_data", "explore_map", "explore_input", "explore_lists", "explore")
SCRIPTS: Mapping[str, Sequence[str]] = {
    "report": _REPORT, "comparison": _COMPARISON, "explore": _EXPLORE,
}  # fmt: skip
_TEMPLATES = {"explore": "explore.html"}
_STYLES: Mapping[str, Sequence[str]] = {"explore": ("page", "explore")}


def build_page(kind: str, title: str, subtitle: str, data: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        kind: "report", "comparison" or "explore".
        title: shown at the top and in the browser's tab.
        subtitle: one line below it.
        data: plain data without NaN; see `serialise.plain`.
    """
    folder = resources.files("convit_ssl.analysis") / "page"
    parts = {
        "title": html.escape(title),
        "subtitle": html.escape(subtitle),
        "style": "\n".join(
            (folder / f"{name}.css").read_text(encoding="utf-8")
            for name in _STYLES.get(kind, ("page",))
        ),
        "script": "\n".join(
            (folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS[kind]
        ),
        "data": _embedded({**data, "palette": CATEGORICAL, "viridis": VIRIDIS.tolist()}),
    }
    template = (folder / _TEMPLATES.get(kind, "page.html")).read_text(encoding="utf-8")
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        filled.append(parts[name] + rest)
    return "".join(filled)


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that holds it, whatever names it carries."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")
