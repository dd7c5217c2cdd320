"""File the results: one folder each, pages and JSON in one form, and an index: ``make results``.

A result is a folder of ``results/``::

    results/demo_cpu_2026-11-26/result.json   what was measured, with commit, versions and machine
    results/demo_cpu_2026-11-26/README.md     the page that the measuring command wrote
    results/demo_cpu_2026-11-26/figure.png    if the command draws one

Commands with ``--record`` write such folders. This tool moves stray files into folders of their
own, writes arrays of numbers on one line and a checksum at the end, moves what is too large to
``arrays.npz`` and ``lists.json.gz``, and writes ``results/INDEX.csv``. ``--check`` changes nothing
and fails if something is left to do.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl.errors import UserError
from convit_ssl.reading import read_json
from convit_ssl.sealed import seal

ROOT = Path(__file__).resolve().parents[1] / "results"
NAMES = {".json": "result.json", ".md": "README.md", ".png": "figure.png"}
LARGEST = 200_000  # bytes of any file
LONG = 400  # numbers; longer arrays leave a result that is too large
COLUMNS = ("folder", "title", "kind", "data", "date", "hardware", "commit", "superseded")
SUPERSEDED = re.compile(r"superseded", re.IGNORECASE)
DATE = re.compile(r"_?(\d{4}-\d\d-\d\d)$")


def move_into_folders(root: Path = ROOT) -> list[Path]:
    """Give files that stand beside the folders a folder each; their new places."""
    moved = []
    for path in sorted(root.iterdir()):
        if path.suffix not in NAMES or path.name in ("README.md", "INDEX.csv"):
            continue
        folder = root / path.stem
        folder.mkdir(exist_ok=True)
        moved.append(path.rename(folder / NAMES[path.suffix]))
    for page in (path for path in moved if path.name == "README.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(_links(text, page.parent.name), encoding="utf-8")
    return moved


def _links(page: str, own: str) -> str:
    """The links of a page that moves one folder down, to pages that have done so, too."""

    def link(match: re.Match[str]) -> str:
        stem, suffix = match.group(1), f".{match.group(2)}"
        if stem == "README":
            return match.group(0)
        place = NAMES[suffix] if stem == own else f"../{stem}/{NAMES[suffix]}"
        return f"]({place})"

    page = re.sub(r"\]\(([\w.-]+)\.(json|md|png)\)", link, page)
    return page.replace("](../docs/", "](../../docs/").replace("](../convit", "](../../convit")


def compact(path: Path) -> str:
    """The text of a result: arrays of plain values on one line, large ones in ``arrays.npz``."""
    value = _sealed(read_json(path))
    text = one_line_arrays(value) + "\n"
    if len(text) <= LARGEST:
        return text
    arrays: dict[str, np.ndarray] = {}
    lists: dict[str, Any] = {}
    value = _sealed(_without_long(value, "", arrays, lists))
    _add_arrays(path.with_name("arrays.npz"), arrays)
    _add_lists(path.with_name("lists.json.gz"), lists)
    text = one_line_arrays(value) + "\n"
    return text if len(text) <= LARGEST else _line_per_row(value)


def _sealed(value: Any) -> Any:
    """With a checksum, which what reads a result compares; a list has no place for one."""
    return seal(value) if isinstance(value, dict) else value


def _add_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    if arrays:
        earlier = dict(np.load(path)) if path.exists() else {}
        np.savez_compressed(path, **{**earlier, **arrays})


def _add_lists(path: Path, lists: dict[str, Any]) -> None:
    if lists:
        earlier = json.loads(gzip.decompress(path.read_bytes())) if path.exists() else {}
        path.write_bytes(gzip.compress(json.dumps({**earlier, **lists}).encode(), mtime=0))


def _line_per_row(value: dict[str, Any]) -> str:
    """JSON of a whole result with a line for each of its rows."""
    parts = []
    for key, one in value.items():
        rows = isinstance(one, list) and any(map(_holds_mapping, one))
        text = "[\n" + ",\n".join(map(json.dumps, one)) + "\n]" if rows else json.dumps(one)
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def one_line_arrays(value: Any, depth: int = 0) -> str:
    """JSON with an indent of one; lists without a dictionary and small values take one line."""
    pad, inner = " " * depth, " " * (depth + 1)
    line = json.dumps(value)
    if len(line) <= 240 and not any(map(_holds_mapping, _children(value))):
        return line
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(k)}: {one_line_arrays(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{pad}}}"
    if isinstance(value, list) and any(_holds_mapping(one) for one in value):
        items = [one_line_arrays(one, depth + 1) for one in value]
        return "[\n" + ",\n".join(inner + item for item in items) + f"\n{pad}]"
    return line


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _holds_mapping(value: Any) -> bool:
    if isinstance(value, list):
        return any(_holds_mapping(one) for one in value)
    return isinstance(value, dict)


def _without_long(
    value: Any, key: str, arrays: dict[str, np.ndarray], lists: dict[str, Any]
) -> Any:
    """The value with long lists replaced by their keys in ``arrays.npz`` and ``lists.json.gz``."""
    if isinstance(value, dict) and key.endswith(".provenance") and len(value) > 3:
        lists[key] = value
        return {"list": key}
    if isinstance(value, dict):
        return {
            name: _without_long(one, f"{key}.{name}".strip("."), arrays, lists)
            for name, one in value.items()
        }
    if not isinstance(value, list):
        return value
    if key.endswith(".sweep"):  # of a linear probe: every head that was tried
        lists[key] = value
        return {"list": key}
    array = _numeric(value)
    if array is not None and array.size >= LONG:
        whole = array.dtype.kind == "i"
        arrays[key] = array.astype(np.min_scalar_type(int(np.abs(array).max()))) if whole else array
        return {"array": key, "shape": list(array.shape)}
    return [_without_long(one, f"{key}.{i}", arrays, lists) for i, one in enumerate(value)]


def _numeric(value: list[Any]) -> np.ndarray | None:
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    kind = array.dtype.kind
    return array if kind == "f" or (kind == "i" and array.min() >= 0) else None


def shrink(path: Path) -> None:
    """A figure over the limit gets a palette of 256 colours."""
    if path.stat().st_size > LARGEST:
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


def entries(root: Path = ROOT) -> Iterator[dict[str, str]]:
    """A row of the index for each folder."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        page = folder / "README.md"
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        file = folder / "result.json"
        found = read_json(file) if file.exists() else {}
        yield _entry(folder.name, text, found)


def _entry(name: str, page: str, found: Any) -> dict[str, str]:
    found = found if isinstance(found, dict) else {}
    runs = found.get("runs")
    last = runs[-1] if isinstance(runs, list) and runs and isinstance(runs[-1], dict) else {}
    about = {**last, **found}
    titles = (line[2:] for line in page.splitlines() if line.startswith("# "))
    date = DATE.search(name)
    hardware = about.get("hardware") or {}
    machine = hardware if isinstance(hardware, str) else _machine(hardware)
    kind = found.get("kind") or found.get("study")
    data = found.get("data") or (found.get("settings") or {}).get("data")
    return {
        "folder": name,
        "title": next(titles, name),
        "kind": str(kind or name.split("_cpu")[0].split("_h200")[0].replace("_", " ")),
        "data": str(data) if isinstance(data, str) else "",
        "date": date.group(1) if date else str(about.get("date", ""))[:10],
        "hardware": machine,
        "commit": str(about.get("commit") or "")[:12],
        "superseded": "yes" if SUPERSEDED.search(page[:1500]) else "",
    }


def _machine(hardware: dict[str, Any]) -> str:
    gpus = hardware.get("gpu") or hardware.get("gpus") or []
    parts = [hardware.get("cpu"), f"{hardware['cores']} cores" if "cores" in hardware else None]
    parts += [gpus] if isinstance(gpus, str) else [", ".join(map(str, gpus))]
    return ", ".join(part for part in parts if part)


def index(root: Path = ROOT) -> str:
    """The text of INDEX.csv."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries(root))
    return stream.getvalue()


def problems(root: Path = ROOT) -> list[str]:
    """What ``make results`` would change, and what it cannot mend."""
    strays = [p for p in root.iterdir() if p.is_file() and p.name not in ("INDEX.csv", "README.md")]
    found = [f"{path.name} stands beside the folders" for path in sorted(strays)]
    found += [
        f"{path.relative_to(root)} is larger than {LARGEST:,} bytes"
        for path in sorted(root.glob("*/*"))
        if path.stat().st_size > LARGEST
    ]
    found += [
        f"{folder.name} has no {name}"
        for folder in sorted(path for path in root.iterdir() if path.is_dir())
        for name in ("README.md", "result.json")
        if not (folder / name).exists()
    ]
    table = root / "INDEX.csv"
    if not table.exists() or table.read_text(encoding="utf-8") != index(root):
        found.append("INDEX.csv is out of date")
    return found


def main(arguments: list[str]) -> int:
    """File everything, or with --check name what is left to do."""
    if "--check" not in arguments:
        for path in move_into_folders():
            print(f"moved to {path.relative_to(ROOT)}")
        for path in sorted(ROOT.glob("*/result.json")):
            text = compact(path)
            if text != path.read_text(encoding="utf-8"):
                path.write_text(text, encoding="utf-8")
        for path in sorted(ROOT.glob("*/*.png")):
            shrink(path)
        (ROOT / "INDEX.csv").write_text(index(), encoding="utf-8")
    found = problems()
    for problem in found:
        print(f"results: {problem}; run make results")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:  # a result that is not what was written
        sys.exit(f"results: {error}")
