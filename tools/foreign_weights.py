"""A table of other tools' checkpoints: each loads with the tool's own features, or is refused.

    python tools/foreign_weights.py FOLDER --out results/foreign_weights_cpu_DATE

FOLDER holds one folder per checkpoint, written by the tool itself: the checkpoint as the tool
leaves it (and what it leaves beside), `reference.npz` with the arrays `images` (N, C, H, W) and
`features` (N, D), computed by the tool, and `about.json` with `tool`, `how` and, where the file
leaves something open, `options` of `load_trunk` that are needed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convit_ssl.adapters  # noqa: F401  lets timm be imported
from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import commit, now, record_folder, versions
from convit_ssl.export import load_trunk

_BESIDE = {"about.json", "reference.npz", "args.json", "config.json", "preprocessor_config.json"}


def main() -> int:
    """Measure each folder and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, help="folder to write the result to")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = [_row(folder) for folder in sorted(args.folder.iterdir()) if folder.is_dir()]
    text = _table(rows)
    print(text)
    if args.out:
        about = {"commit": commit(), "time": now(), "versions": versions()}
        place = record_folder(args.out)
        text_of = json.dumps({**about, "rows": rows}, indent=1) + "\n"
        (place / "result.json").write_text(text_of)
        (place / "README.md").write_text(text + "\n")
    wrong = [row for row in rows if row["difference"] is not None and row["difference"] > 1e-5]
    return 1 if wrong else 0


def _row(folder: Path) -> dict[str, Any]:
    about = json.loads((folder / "about.json").read_text())
    files = [path for path in sorted(folder.iterdir()) if path.name not in _BESIDE]
    source = folder if about.get("folder") else files[0]
    row = {
        "name": folder.name, "tool": about["tool"], "how": about["how"], "file": source.name,
        "alone": _load(source, folder, {}),
    }  # fmt: skip
    options = about.get("options", {})
    row["options"] = options
    best = _load(source, folder, options) if options else row["alone"]
    row |= {"difference": best["difference"], "said": best["said"], "guesses": best["guesses"]}
    return row


def _load(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The largest difference of the features over their largest value, or the refusal."""
    try:
        model = load_trunk(source, num_classes=0, **options)
    except UserError as error:
        text = str(error).replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
        return {"difference": None, "said": text, "guesses": []}
    with np.load(folder / "reference.npz", allow_pickle=False) as stored:
        images, expected = (torch.from_numpy(stored[name]) for name in ("images", "features"))
    with torch.inference_mode():
        actual = model(images)
    scale = max(1.0, float(expected.abs().max()))
    provenance = model.provenance
    return {
        "difference": float((actual - expected).abs().max()) / scale,
        "said": "; ".join(provenance["notes"]),
        "guesses": provenance["guesses"],
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Checkpoints of other tools",
        "",
        "Each was written by the tool itself, with weights drawn at random, and compared with the "
        "features (class token behind the last LayerNorm) that the tool computes on random images. "
        "The difference is the largest one, over the largest feature or 1.",
        "",
        "| written by | as | loads | difference | what was read or said |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        options = ", ".join(f"{key}={value!r}" for key, value in row["options"].items())
        if row["difference"] is None:
            loads, difference = "refused", ""
        else:
            loads, difference = f"with {options}" if options else "yes", f"{row['difference']:.1e}"
        alone = row["alone"]
        refused = alone["said"] if options and alone["difference"] is None else ""
        said = f"without: {refused}" if refused else row["said"]
        cells = (row["tool"], row["how"], loads, difference, said)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
