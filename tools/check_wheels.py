"""Which pins of requirements.lock have no wheel for a platform: `python tools/check_wheels.py`.

Asks the package index through uv and downloads no package. Needs uv and an interpreter of each
Python in question, for its version number alone; nothing of the other platform is run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Pure Python; their authors publish sources only.
FROM_SOURCE = {"antlr4-python3-runtime", "fvcore", "iopath", "vissl"}
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_36",
    "Linux arm64": "aarch64-manylinux_2_36",
    "macOS 15 arm64": "aarch64-apple-darwin",
}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MISSING = re.compile(r"Because (?:only )?([A-Za-z0-9._-]+)[^,]*?(?:==\S+)? has no usable wheels")


def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call uv of this environment."""
    command = [str(Path(sys.executable).with_name("uv")), *arguments]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "15.0"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def without_wheel(platform: str, python: str, folder: Path) -> list[str]:
    """Names of pins that have no wheel; uv tells one at a time."""
    pins = [
        line
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line and line.partition("==")[0] not in FROM_SOURCE
    ]
    venv = folder / "venv"
    made = uv("venv", "-q", "--clear", "--no-python-downloads", "--python", python, str(venv))
    if made.returncode:
        return ["(no such Python here)"]
    missing: list[str] = []
    while True:
        file = folder / "pins.txt"
        file.write_text("\n".join(p for p in pins if p.partition("==")[0] not in missing))
        asked = uv(
            *("pip", "install", "--dry-run", "-q", "--no-deps", "--only-binary", ":all:"),
            *("--python", str(venv), "--python-platform", platform, "-r", str(file)),
        )
        if asked.returncode == 0:
            return missing
        found = MISSING.search(" ".join(asked.stderr.split()))
        if not found or (name := found[1].partition("{")[0]) in missing:
            raise SystemExit(asked.stderr)
        missing.append(name)


def main() -> int:
    """Print a table in Markdown."""
    print(f"| platform | {' | '.join(PYTHONS)} |\n|---|{'---|' * len(PYTHONS)}")
    for name, platform in PLATFORMS.items():
        cells = []
        for python in PYTHONS:
            with tempfile.TemporaryDirectory() as folder:
                missing = without_wheel(platform, python, Path(folder))
            cells.append(f"no wheel: {', '.join(missing)}" if missing else "all")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
