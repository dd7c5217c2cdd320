"""Fill the figures of README.md and docs/ from the files of results/: ``make readme``.

A block in a page looks like this; what is between the two comments is replaced::

    <!-- figures: speed results/bench_model_cpu_2026-11-26 -->
    <!-- end of figures -->

``python tools/make_figures --check`` changes nothing and fails if a block is not up to date.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster_tables import checkpoints, cluster
from evidence_tables import deit, demo, differences, evidence, plain, probes, race
from label_free_tables import label_free, label_free_study
from speed_tables import builds, ceiling, cores, speed, speed_summary

from convit_ssl.reading import read_json

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(<!-- figures: (\S+) ([^>]*?) -->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every page that may hold a block."""
    return sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def filled(page: Path) -> str:
    """The text of a page with its blocks made anew."""

    def fill(match: re.Match[str]) -> str:
        opening, kind, words, _, closing = match.groups()
        folders = [ROOT / word for word in words.split()]
        files = [folder / "result.json" for folder in folders]
        body = KINDS[kind]([read_json(file) for file in files])
        links = ", ".join(
            f"[{folder.name}]({os.path.relpath(folder / 'README.md', page.parent)})"
            for folder in folders
        )
        return f"{opening}{body}\n\nFrom {links}.\n{closing}"

    return BLOCK.sub(fill, page.read_text(encoding="utf-8"))


KINDS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "speed": speed,
    "speed_summary": speed_summary,
    "builds": builds,
    "ceiling": ceiling,
    "cores": cores,
    "demo": demo,
    "evidence": evidence,
    "plain": plain,
    "deit": deit,
    "differences": differences,
    "race": race,
    "probes": probes,
    "label_free": label_free,
    "label_free_study": label_free_study,
    "cluster": cluster,
    "checkpoints": checkpoints,
}


def main(arguments: list[str]) -> int:
    """Fill all pages, or with --check name those that are out of date."""
    stale = [page for page in pages() if filled(page) != page.read_text(encoding="utf-8")]
    if "--check" in arguments:
        for page in stale:
            print(f"{page.relative_to(ROOT)}: figures are out of date; run make readme")
        return 1 if stale else 0
    for page in stale:
        page.write_text(filled(page), encoding="utf-8")
        print(f"filled {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
