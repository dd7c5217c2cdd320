"""The demo's figures as a result file: what README shows, and all that they depend on."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convit_ssl.evaluation.probes.knn import knn_name
from convit_ssl.evaluation.results import (
    commit,
    hardware,
    record_folder,
    versions,
    without_home,
    write_json,
)
from convit_ssl.runs import RunFolder


def write(stem: str, results: Mapping[str, list[Any]], folder: Path, seconds: float) -> None:
    """Write ``result.json`` and ``README.md`` to the folder ``stem``.

    Args:
        stem: folder of the result.
        results: of ``knn`` and ``linear``, a row for each kind of features.
        folder: of the run.
        seconds: of the whole demo.
    """
    about = {
        "command": ["convit-ssl", *sys.argv[1:]],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds, 1),
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
    }
    run = without_home(RunFolder(folder).read_result())
    place = record_folder(stem)
    write_json({**about, "results": results, "run": run}, place / "result.json")
    (place / "README.md").write_text(page(about, results))
    print(f"written: {place}/result.json, {place}/README.md")


def page(about: Mapping[str, Any], results: Mapping[str, list[Any]]) -> str:
    """The figures in Markdown, with 95 % intervals."""
    machine, command = about["hardware"], shlex.join(about["command"])
    lines = [
        f"# The demo, {about['date']}",
        "",
        f"`{command}`: {about['seconds']:.0f} s on {machine['cores']} core(s) of {machine['cpu']}, "
        f"torch {about['versions'].get('torch', '?')}, commit "
        f"{about['commit'] or 'unknown'}. DINO on 1,000 digits of 8 x 8 pixels, seed 0; accuracy "
        "in % on 797 others, with 95 % intervals.",
        "",
        f"| features | {knn_name(20)} | {knn_name(10)} | {knn_name(5, weighted=False)} "
        "| linear probe |",
        "|---|---:|---:|---:|---:|",
    ]
    for knn, linear in zip(results["knn"], results["linear"], strict=True):
        cells = [_interval(knn), knn["details"]["k=10"], knn["details"]["plain 5-NN"]]
        lines.append(f"| {knn['name']} | {' | '.join(cells)} | {_interval(linear)} |")
    return "\n".join(lines) + "\n"


def _interval(row: Mapping[str, Any]) -> str:
    accuracy, low, high = (100 * share for share in (row["accuracy"], *row["interval_95"]))
    return f"{accuracy:.1f} ({low:.1f} - {high:.1f})"
