"""Result rows: a figure with everything it depends on, as JSON and as a table."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from convit_ssl import __version__
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.fingerprint import hash_json
from convit_ssl.evaluation.row_checks import check_row
from convit_ssl.machine import available_cores
from convit_ssl.reading import printable, read_json
from convit_ssl.sealed import seal
from convit_ssl.writing import whole_file

PACKAGES = ("torch", "torchvision", "timm", "vissl", "numpy", "scikit-learn", "pillow")
FORMAT = 1


def versions() -> dict[str, str]:
    """Of this package, Python, and whatever a figure may depend on."""
    found = {"convit_ssl": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(root: str | Path | None = None) -> str | None:
    """The git commit of the source, with "-dirty" after local changes; None outside of git.

    The files under ``results/`` are left out: they are written by what asks for the commit. A
    package that was installed inside somebody else's repository has no commit.
    """
    root = Path(root or Path(__file__).resolve().parents[2]).resolve()
    found = _git(root, "rev-parse", "--show-toplevel", "HEAD")
    if found is None or Path(found.splitlines()[0]).resolve() != root:
        return None
    source = ("--untracked-files=no", "--", ".", ":(exclude)results")
    changed = _git(root, "status", "--porcelain", *source)
    return found.splitlines()[1] + ("-dirty" if changed else "")


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, None where it fails or is absent."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def now() -> str:
    """The time, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def hardware() -> dict[str, Any]:
    """The machine, in words and numbers; nothing that names it."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "gpus": gpus,
        "system": platform.system(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def result_row(
    kind: str,
    name: str,
    figure: Mapping[str, Any],
    settings: Mapping[str, Any],
    fingerprint: Mapping[str, str],
    **about: Any,
) -> dict[str, Any]:
    """One result with what it depends on.

    Args:
        kind: "knn", "linear", "finetune", ...
        name: what was measured, for a reader.
        figure: has `accuracy` 0..1, and `interval_95` where it is known.
        settings: of the measurement, resolved.
        fingerprint: hashes of what must be equal in rows that are averaged: data, transforms.
        about: seed, seconds, images_per_s, provenance of the weights.
    """
    return {
        "format": FORMAT,
        "kind": kind,
        "name": name,
        **figure,
        **without_home(about),
        "settings": dict(settings),
        "settings_hash": hash_json(settings),
        "fingerprint": dict(fingerprint),
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "time": now(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def without_home(value: Any) -> Any:
    """The same with ~ in place of the home folder: results are shown to others."""
    if isinstance(value, Mapping):
        return {key: without_home(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_home(item) for item in value]
    home = os.path.expanduser("~")
    if isinstance(value, str) and home not in ("/", "~"):
        return re.sub(rf"(?<![\w/]){re.escape(home)}(?=/|$)", "~", value)
    return value


def write_json(value: Any, path: str | Path) -> None:
    """Write JSON whole or not at all; an object with a checksum, which `read_json` compares."""
    content: Any = seal(value, _plain) if isinstance(value, Mapping) else value
    try:
        with whole_file(path) as partial:
            partial.write_text(json.dumps(content, indent=1, default=_plain) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def record_folder(stem: str | Path) -> Path:
    """The folder of a recorded result, made if need be.

    It holds ``result.json``, the page ``README.md`` and, where the command draws one,
    ``figure.png``.

    Raises:
        UserError: the folder cannot be made.
    """
    folder = Path(stem)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    return folder


def read_rows(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The result rows of some JSON files or of the folders of runs and studies.

    A file holds a row or a list of rows.

    Raises:
        UserError: a file is missing or holds no results with an accuracy.
    """
    rows: list[dict[str, Any]] = []
    for path in paths:
        value = read_json(_result_file(Path(path)))
        found = value.get("results", [value]) if isinstance(value, dict) else value
        if not isinstance(found, list) or not found:
            raise UserError(f"{path} holds no results")
        rows.extend(check_row(row, path) for row in found)
    return rows


def _result_file(path: Path) -> Path:
    """The file itself, or that of a run's or a study's folder."""
    files = (path / "result.json", path / "results.json") if path.is_dir() else (path,)
    return next((file for file in files if file.is_file()), files[0])


def average(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread of the accuracy over rows that differ in nothing but the seed.

    Returns:
        `mean`, `spread` (sample standard deviation, None for one row), `count`, `seeds`, and the
        means of `balanced_accuracy` and `auc` (None where a row has none).

    Raises:
        UserError: the rows measure different things: the differing key is named.
    """
    if not rows:
        raise UserError("no results to average")
    first = rows[0]
    for row in rows[1:]:
        for key in ("kind", "fingerprint", "settings"):
            one, other = first.get(key), row.get(key)
            if one != other:
                raise UserError(
                    f"results of {first.get('name')!r} and {row.get('name')!r} are not averaged: "
                    f"their {_difference(key, one, other)} differ"
                )
    values = [float(row["accuracy"]) for row in rows]
    return {
        "mean": statistics.fmean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "count": len(values),
        "seeds": [row.get("seed") for row in rows],
        **{key: _mean([row.get(key) for row in rows]) for key in ("balanced_accuracy", "auc")},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


LONGEST_WORD = 16  # of a name in a table that is kept in one piece


def results_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """One line per result: name, accuracy with its 95 % interval, and what else is known.

    Balanced accuracy and the area under the ROC curve have columns where a row has them;
    `details` of a row are further figures by the name of their column.
    """
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None)
    names = [printable(str(row.get("name") or "unnamed")) for row in rows]
    longest = max((len(word) for name in names for word in name.split()), default=1)
    # Names break between words; longer than that is a path, which is folded.
    table.add_column("", overflow="fold", min_width=min(longest, LONGEST_WORD))
    table.add_column("accuracy", justify="right", style="bold", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    shares = {
        title: key
        for title, key in (("balanced", "balanced_accuracy"), ("AUC", "auc"))
        if any(row.get(key) is not None for row in rows)
    }
    for name in shares:
        table.add_column(name, justify="right", no_wrap=True)
    columns = list(dict.fromkeys(name for row in rows for name in row.get("details", {})))
    for name in columns:
        table.add_column(escape(printable(str(name))), justify="right", style="dim")
    for name, row in zip(names, rows, strict=True):
        low, high = row.get("interval_95") or (math.nan, math.nan)
        interval = "" if math.isnan(low) else f"{100 * low:.1f} - {100 * high:.1f}"
        details = row.get("details", {})
        cells = (str(details.get(name, "")) for name in columns)
        own = (_percent(row.get(key)) for key in shares.values())
        texts = (escape(printable(str(cell))) for cell in cells)
        table.add_row(escape(name), _percent(row["accuracy"]), interval, *own, *texts)
    return table


def _percent(share: Any) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _difference(key: str, one: Any, other: Any) -> str:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = sorted({*one, *other})
        return f"{key} ({', '.join(n for n in names if one.get(n) != other.get(n))})"
    return f"{key} ({one!r} and {other!r})"


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if hasattr(value, "item"):
        return value.item()
    return str(value)
