"""What `make docs` adds to the pages of this folder: the results, one page each and a list.

The files of ``results/`` stay where the commands write them; here they become pages of the site,
and links that lead out of ``docs/`` are made to lead to them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
SUPERSEDED = re.compile(r"superseded", re.IGNORECASE)
OUTWARD = re.compile(r"\]\((?:\.\./)+results/")


def on_files(files: Files, config: Any) -> Files:
    """Add the results, their figures, and the list of them."""
    for path in sorted([*RESULTS.glob("*.md"), *RESULTS.glob("*.png")]):
        files.append(_file(f"results/{path.name}", path, config))
    files.append(File.generated(config, "results.md", content=results_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to ``../results/`` lead to the pages of this site."""
    own = page.file.src_uri
    if own.startswith("results/"):
        return re.sub(r"\]\(([\w-]+\.json)\)", r"](#)", markdown)
    depth = own.count("/")
    return OUTWARD.sub("](" + "../" * depth + "results/", markdown)


def results_page() -> str:
    """All results with their titles; superseded ones are marked."""
    rows = ["# Results", "", INTRODUCTION, "", "| file | what | |", "|---|---|---|"]
    for path in sorted(RESULTS.glob("*.md")):
        if path.name == "README.md":
            continue
        text = path.read_text(encoding="utf-8")
        title = next((line[2:] for line in text.splitlines() if line.startswith("# ")), path.stem)
        note = "superseded" if SUPERSEDED.search(text[:1500]) else ""
        rows.append(f"| [{path.stem}](results/{path.name}) | {title} | {note} |")
    return "\n".join(rows) + "\n"


INTRODUCTION = """Each page is written by the command it names, with commit, versions,
hardware and the figure of every seed. Results that came out badly are kept. *Superseded* marks
pages whose figures should not be quoted any more; each says why."""


def _file(uri: str, path: Path, config: Any) -> File:
    if path.suffix == ".md":
        return File.generated(config, uri, content=path.read_text(encoding="utf-8"))
    return File.generated(config, uri, abs_src_path=str(path))
