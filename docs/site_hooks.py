"""What `make docs` adds to the pages of this folder: the results, one page each and a list.

The files of ``results/`` stay where the commands write them; here they become pages of the site,
and links that lead out of ``docs/`` are made to lead to them.
"""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
OTHER_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|CHANGELOG|UPGRADING)[^)]*\)")
# What a browser loads by itself: scripts, pictures, style sheets and icons.
FETCHED = re.compile(r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]*)"')
ADDRESS = re.compile(r'(?:src|href)="([^"]*)"')
OUTWARD = re.compile(r"\]\((?:\.\./)+(results/|(?:CHANGELOG|CONTRIBUTING|UPGRADING)\.md)")


def on_files(files: Files, config: Any) -> Files:
    """Add the results, their figures, and the list of them."""
    for path in sorted([*RESULTS.glob("*/README.md"), *RESULTS.glob("*/*.png")]):
        files.append(_file(f"results/{path.parent.name}/{path.name}", path, config))
    files.append(File.generated(config, "results.md", content=results_page()))
    for name in ("CHANGELOG.md", "UPGRADING.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=OTHER_LINK.sub(r"\1", text)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links out of ``docs/`` lead to the pages of this site."""
    own = page.file.src_uri
    if own.startswith("results/"):
        markdown = re.sub(r"\]\([\w./-]+\.(json|npz|gz)\)", "](#)", markdown)
        return markdown.replace("](../../docs/", "](../../")
    depth = own.count("/")
    return OUTWARD.sub("](" + "../" * depth + r"\1", markdown)


def on_post_build(config: Any, **_: Any) -> None:
    """Refuse a site that needs the network, or in which a link leads nowhere.

    Raises:
        PluginError: names the pages and the addresses.
    """
    site = Path(config["site_dir"]).resolve()
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    wrong = [
        f"{path.relative_to(site)}: {address}"
        for path, text in pages.items()
        for address in [*FETCHED.findall(text), *_dead_links(path, text, pages)]
    ]
    if wrong:
        raise PluginError("not there, or fetched from the network:\n" + "\n".join(sorted(wrong)))


def _dead_links(page: Path, text: str, pages: dict[Path, str]) -> list[str]:
    """Addresses within the site that have no file, or no such place in it."""
    dead = []
    for address in set(ADDRESS.findall(text)):
        name, _, place = html.unescape(unquote(address)).partition("#")
        target = (page.parent / name.partition("?")[0]).resolve() if name else page
        if page.name == "404.html" or ":" in name.partition("/")[0] or name.startswith("//"):
            continue
        if target.is_dir():
            target = target / "index.html"
        there = target.is_file()
        if there and place and target in pages:
            there = f'id="{place}"' in pages[target] or place.startswith("__")
        if not there:
            dead.append(address)
    return dead


def results_page() -> str:
    """All results with their titles; superseded ones are marked."""
    rows = [
        "# Results",
        "",
        INTRODUCTION,
        "",
        "| result | what | date | machine | note |",
        "|---|---|---|---|---|",
    ]
    with (RESULTS / "INDEX.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            page = f"results/{row['folder']}/README.md"
            note = "superseded" if row["superseded"] else ""
            cells = [f"[{row['folder']}]({page})", row["title"], row["date"], row["hardware"], note]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


INTRODUCTION = """Each page is written by the command it names, with commit, versions,
hardware and the result of every seed. Negative results are kept. *Superseded* marks pages whose
numbers should no longer be quoted, and each says why. The same table is in `results/INDEX.csv`.

## What did not work, and why

- **Pretraining for one core-minute** was ahead of raw pixels on 240 synthetic textures and behind
  training with labels alone; on photographs of solar cells nothing was ahead of raw pixels
  (five seeds: [textures](results/baselines_textures_240_frozen_cpu_2026-11-30/README.md),
  [solar cells](results/baselines_elpv_frozen_cpu_2026-11-30/README.md)). So every
  result is shown next to references.
- **SwAV with the published settings** stays at the loss of a uniform assignment on a thousand
  digits: with small batches, the assignment is too even to learn from. The defaults for small
  collections differ ([digits](results/digits_methods_cpu_2026-11-26/README.md)).
- **The published supervised recipe** (mixup, cutmix, RandAugment) needs more epochs than a CPU
  run on a small collection has: with it the network learns slowly
  ([labels](results/labels_recipe_cpu_2026-11-27/README.md)).
- **Smaller patches** give more tokens per image, and so fewer epochs in the same time on a CPU;
  more epochs were worth more ([patches](results/smallest_patches_cpu_2026-11-27/README.md)).
- **The first version of the textures** cut train and val images from the same fields, so its
  accuracies are too high and superseded
  ([textures](results/textures_cpu_2026-11-25/README.md)).

## All results
"""


def _file(uri: str, path: Path, config: Any) -> File:
    if path.suffix == ".md":
        return File.generated(config, uri, content=path.read_text(encoding="utf-8"))
    return File.generated(config, uri, abs_src_path=str(path))
