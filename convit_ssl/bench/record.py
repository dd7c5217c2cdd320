"""The JSON that a benchmark leaves: what was measured, and the runs that measured it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import commit, hardware, versions, write_json
from convit_ssl.reading import read_json

Comparison = dict[str, Any]
_MACHINE = ("hardware", "versions", "threads")
_FIGURES = ("rows", "run", "out_of_memory")  # everything else of a comparison was held equal


def environment() -> dict[str, Any]:
    """What the figures of one run depend on."""
    return {
        "command": ["convit-ssl", *sys.argv[1:]],
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def check_record(kind: str, path: str | None, add: bool) -> None:
    """Find out before measuring whether `make_record` will be able to add.

    Raises:
        UserError: `add` without a file, or the file is of another benchmark or machine.
    """
    if add and not path:
        raise UserError("--add needs --json FILE, the file to add to")
    if add:
        _earlier(kind, str(path))


def make_record(
    kind: str, comparisons: list[Comparison], path: str | None, add: bool = False
) -> dict[str, Any]:
    """This run and its comparisons, written to `path`.

    Args:
        kind: "model", "step", ...
        comparisons: what was measured; each gets the number of its run.
        path: a JSON file, or None to write nothing.
        add: keep what the file holds, except comparisons that were measured again.

    Raises:
        UserError: as `check_record`.
    """
    record = keep(kind, comparisons, path, add)
    if path:
        print(f"written: {path}")
    return record


def keep(
    kind: str, comparisons: list[Comparison], path: str | None, add: bool = False
) -> dict[str, Any]:
    """As `make_record`, and silent: after each comparison, so that what ends a run loses none."""
    runs: list[dict[str, Any]] = []
    kept: list[Comparison] = []
    if add and path:
        again = {_held_equal(comparison) for comparison in comparisons}
        earlier = _earlier(kind, path)
        kept = [c for c in earlier["comparisons"] if _held_equal(c) not in again]
        needed = sorted({comparison["run"] for comparison in kept})
        runs = [earlier["runs"][number] for number in needed]
        kept = [{**c, "run": needed.index(c["run"])} for c in kept]
    added = [{**comparison, "run": len(runs)} for comparison in comparisons]
    record = {"kind": kind, "runs": [*runs, environment()], "comparisons": [*kept, *added]}
    if path:
        write_json(record, path)
    return record


def _held_equal(comparison: Comparison) -> str:
    return json.dumps({k: v for k, v in comparison.items() if k not in _FIGURES}, sort_keys=True)


def _earlier(kind: str, path: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"runs": [], "comparisons": []}
    if not Path(path).exists():
        return empty
    try:
        earlier: dict[str, Any] = read_json(path)
        runs, found = earlier["runs"], earlier["kind"]
    except (UserError, KeyError, TypeError) as error:
        reason = f": {error}" if isinstance(error, UserError) else ""
        raise UserError(
            f"--add: {path} is not a file of `convit-ssl bench {kind}`{reason}"
        ) from error
    if found != kind:
        raise UserError(f"--add: {path} is of `convit-ssl bench {found}`, not of bench {kind}")
    now = environment()
    for part in _MACHINE:
        if runs and runs[-1][part] != now[part]:
            raise UserError(
                f"--add: {path} was measured with {part} {runs[-1][part]}, and here they are "
                f"{now[part]}. Ratios from different machines must not be mixed in one file: give "
                f"another --json"
            )
    return earlier
