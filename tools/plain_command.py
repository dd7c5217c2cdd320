"""What the README's command says after its own training, with one thread.

    python tools/plain_command.py fashion_mnist elpv --out results/plain_command_cpu_DATE

The run chooses its length, and ends with a verdict on val. Started again after a stop, this leaves
out what the same commit has measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from convit_ssl.evaluation.results import commit, hardware, now, record_folder, versions

COMMON = ("run=cpu", "trunk=convit_nano", "run.threads=1")  # as README has it


def main() -> int:
    """Train on each collection and write what was said."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", nargs="+", help="built-in data sets")
    parser.add_argument("--config", default="convit_simclr", help="experiment to run")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="further options of the run"
    )
    parser.add_argument(
        "--out", metavar="results/NAME", required=True, help="folder to write the result to"
    )
    args = parser.parse_args()
    place = record_folder(Path(args.out))
    rows = _known(place)
    for name in args.collections:
        command = ["train", f"config={args.config}", f"data={name}", *COMMON, *args.set]
        if not any(row["command"] == command for row in rows):
            rows.append({"data": name, "command": command, **_train(command)})
            _write(place, rows)
    print(_page(rows))
    return 0


def _known(place: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads((place / "result.json").read_text())
    except OSError:
        return []
    return found["rows"] if found["commit"] == commit() else []


def _train(command: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "convit_ssl.cli.main", *command, f"run.root={folder}"]
        screen = Path(folder) / "screen"
        with screen.open("w") as written:
            run = subprocess.Popen(program, stdout=written)
            _, status, used = os.wait4(run.pid, 0)
        if status:
            raise SystemExit(f"exit status {status}: {' '.join(program)}")
        result = json.loads(next(Path(folder).glob("*/result.json")).read_text())
        lines = screen.read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("done: "))
    return {
        "epochs": result["epochs"],
        "images": result["data"]["images"],
        "core_minutes": round((used.ru_utime + used.ru_stime) / 60, 1),
        "first_step_cpu_s": result["figures"]["first_step_cpu_s"],
        "verdict": result["verdict"],
        "said": [line for line in lines[end + 1 :] if not line.startswith(("next: ", " " * 6))],
    }


def _write(place: Path, rows: list[dict[str, Any]]) -> None:
    about = {"commit": commit(), "time": now(), "versions": versions(), "hardware": hardware()}
    (place / "result.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    (place / "README.md").write_text(_page(rows) + "\n")


def _page(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["verdict"]["against"]))
    lines = [
        "# What the plain command says",
        "",
        f"Commit {commit()}, {now()}.",
        "",
        "One run each, with seed 0, one thread, and what the collection itself chooses. "
        "Core-minutes are the processor time of the whole command, verdict included. "
        "Differences are in points, with intervals of 95 % over the images of the test.",
        "",
        "| collection | images | epochs | core-minutes | measure | "
        + " | ".join(f"less {name}" for name in names) + " |",
        "|---|---:|---:|---:|---|" + "---:|" * len(names),
    ]  # fmt: skip
    for row in rows:
        verdict = row["verdict"]
        cells = [_points(verdict["against"].get(name)) for name in names]
        measure = f"{verdict['probe']}, {verdict['metric'].replace('_', ' ')}"
        lines.append(
            f"| {row['data']} | {row['images']:,} | {row['epochs']} | {row['core_minutes']:.1f} | "
            f"{measure} | " + " | ".join(cells) + " |"
        )
    for row in rows:
        lines += ["", f"## {row['data']}", "", f"    convit-ssl {' '.join(row['command'])}", ""]
        lines += [f"    {line}" for line in row["said"]]
    return "\n".join(lines)


def _points(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    value, low, high = (100 * x for x in (found["difference"], *found["interval_95"]))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    sys.exit(main())
