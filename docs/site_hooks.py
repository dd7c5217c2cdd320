"""What `make docs` adds to the pages of this folder: the results, one page each and a list.

The files of ``results/`` stay where the commands write them; here they become pages of the site,
and links that lead out of ``docs/`` are made to lead to them.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
OTHER_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|CHANGELOG|UPGRADING)[^)]*\)")
OUTWARD = re.compile(r"\]\((?:\.\./)+results/")


def on_files(files: Files, config: Any) -> Files:
    """Add the results, their figures, and the list of them."""
    for path in sorted([*RESULTS.glob("*/README.md"), *RESULTS.glob("*/*.png")]):
        files.append(_file(f"results/{path.parent.name}/{path.name}", path, config))
    files.append(File.generated(config, "results.md", content=results_page()))
    for name in ("CHANGELOG.md", "UPGRADING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=OTHER_LINK.sub(r"\1", text)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to ``../results/`` lead to the pages of this site."""
    own = page.file.src_uri
    if own.startswith("results/"):
        markdown = re.sub(r"\]\([\w./-]+\.(json|npz|gz)\)", "](#)", markdown)
        return markdown.replace("](../../docs/", "](../../")
    depth = own.count("/")
    return OUTWARD.sub("](" + "../" * depth + "results/", markdown)


def results_page() -> str:
    """All results with their titles; superseded ones are marked."""
    rows = [
        "# Results",
        "",
        INTRODUCTION,
        "",
        "| result | what | date | machine | |",
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
hardware and the figure of every seed. Results that came out badly are kept. *Superseded* marks
pages whose figures should not be quoted any more; each says why. The same table is
`results/INDEX.csv`.

## What did not work, and why

- **Pretraining for one core-minute** was ahead of raw pixels on 240 drawn textures and behind
  training with the labels alone; on photographs of solar cells nothing was ahead of raw pixels
  (five seeds: [textures](results/baselines_textures_240_frozen_cpu_2026-11-30/README.md),
  [solar cells](results/baselines_elpv_frozen_cpu_2026-11-30/README.md)). A reference belongs
  beside every figure.
- **SwAV as published** stays at the loss of a uniform assignment on a thousand digits: with few
  images a batch, the assignment is too even to learn from. The defaults for small collections
  differ ([digits](results/digits_methods_cpu_2026-11-26/README.md)).
- **The published recipe for labels** (mixup, cutmix, RandAugment) needs more epochs than a small
  collection on a CPU gets: the network mostly learns to see through the augmentation
  ([labels](results/labels_recipe_cpu_2026-11-27/README.md)).
- **Smaller patches** give more tokens for the same image, and on a CPU fewer epochs in the same
  time; the epochs were worth more ([patches](results/smallest_patches_cpu_2026-11-27/README.md)).
- **The first version of the textures** cut train and val images from the same fields, so its
  figures are too high; they are superseded ([textures](results/textures_cpu_2026-11-25/README.md)).

## All results
"""


def _file(uri: str, path: Path, config: Any) -> File:
    if path.suffix == ".md":
        return File.generated(config, uri, content=path.read_text(encoding="utf-8"))
    return File.generated(config, uri, abs_src_path=str(path))
