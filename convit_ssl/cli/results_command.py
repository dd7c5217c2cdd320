"""``convit-ssl results``: show result files as one table."""

from __future__ import annotations

import argparse
from typing import Any

from convit_ssl.evaluation.results import average, read_rows, results_table
from convit_ssl.terminal import Terminal

SUMMARY = "show result files (--json of the probes, results.json of studies) as one table"
EXAMPLE = "convit-ssl results seed0.json seed1.json seed2.json --average"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE",
        help="result file or folder: written with --json, or by a run or a study",
    )  # fmt: skip
    parser.add_argument(
        "--average",
        action="store_true",
        help="average rows of the same name; an error if their data or settings differ",
    )


def run(args: argparse.Namespace) -> int:
    """Read and print."""
    rows = [_described(row) for row in read_rows(args.files)]
    if args.average:
        rows = _averaged(rows)
    Terminal().print(results_table(rows))
    return 0


def _described(row: dict[str, Any]) -> dict[str, Any]:
    """The columns that rows of every kind share, in place of each kind's own details."""
    name, seed = row.get("name", "?"), row.get("seed")
    if "fraction" in row:
        name = f"{name}, {100 * row['fraction']:g} %"
    commit = (row.get("commit") or "")[:8]
    details = {"kind": row.get("kind", ""), "seed": "" if seed is None else seed, "commit": commit}
    return {**row, "name": name, "details": details}


def _averaged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row.get("kind"), row["name"]), []).append(row)
    means = []
    for (kind, name), group in groups.items():
        found = average(group)
        spread = "" if found["spread"] is None else f"± {100 * found['spread']:.1f}"
        details = {"spread": spread, "rows": found["count"], "kind": kind}
        figures = {key: found[key] for key in ("balanced_accuracy", "auc")}
        means.append({"name": name, "accuracy": found["mean"], **figures, "details": details})
    return means
