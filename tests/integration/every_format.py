"""Every image format from its files to a report, by the commands that a user types.

    python tests/integration/every_format.py --root /tmp/formats --out results/every_format_cpu

Writes a small collection of two classes in each format whose library is installed, compares what is
read with what the library itself reads, trains for two epochs, and runs ``knn``, ``export`` and
``report``. Then a file is cut in half: training with ``data.max_corrupt=0`` has to end in one
message that names it. Each command is a process of its own, unless ``--in-process`` is given.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.integration.format_files import FORMATS, Format  # noqa: E402
from tests.integration.library_files import LIBRARIES, compare_library  # noqa: E402

TINY = [
    *("config=convit_dino", "run=cpu", "trunk=convit_nano", "trunk.embed_dim=32"),
    *("trunk.depth=3", "trunk.num_gpsa_layers=2", "trunk.patch_size=4", "crops.global_size=32"),
    *("crops.local_count=0", "method.hidden_dim=32", "method.bottleneck_dim=16"),
    *("method.out_dim=64", "optim.batch_size=8", "optim.epochs=2", "run.threads=1"),
    *("run.precision=fp32", "data.workers=0", "run.tensorboard=false", "watch.every=0"),
    "run.name=run",
]
COLUMNS = ("format", "version", "images", "equal to the library", "loss of 2 epochs", "kNN, %",
           "export differs by", "report, MB", "a file cut in half")  # fmt: skip


def run_command(arguments: list[str], in_process: bool) -> tuple[int, str]:
    """Exit code and everything that a command prints."""
    if not in_process:
        ended = subprocess.run(
            [sys.executable, "-m", "convit_ssl.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        )
        return ended.returncode, ended.stdout
    from convit_ssl.cli.main import main

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return int(code or 0), text.getvalue()


def checked(arguments: list[str], in_process: bool) -> str:
    """What a command prints that must succeed."""
    code, text = run_command(arguments, in_process)
    if code:
        raise AssertionError(f"{' '.join(arguments)}\nended with {code}:\n{text[-3000:]}")
    return text


def compare(one: Format, files: list[Path]) -> int:
    """How many images are equal to what the library reads; fails on the first that is not."""
    import numpy as np

    from convit_ssl.bench.format_cases import ours

    count = 0
    for file in files:
        for part, expected in one.read(str(file)):
            read = ours(f"{file}#{part}" if part else str(file))
            if not np.array_equal(read, expected):
                raise AssertionError(f"{file}#{part} is read differently")
            count += 1
    return count


def broken(file: Path) -> None:
    """Cut a file in half; of a folder, its largest file."""
    if file.is_dir():
        file = max((p for p in file.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def message_of(text: str) -> str:
    """The one message of a refusal; fails on a traceback, and where it names no file."""
    assert "Traceback" not in text, text[-3000:]
    found = [line for line in text.splitlines() if line.startswith("convit-ssl train: ")]
    assert len(found) == 1, text[-3000:]
    return text[text.index(found[0]) :].strip()


_DISTRIBUTIONS = {
    "PIL": "pillow", "pillow_jxl": "pillow-jxl-plugin", "openslide": "openslide-python",
}  # fmt: skip


def walk(one: Format, root: Path, in_process: bool = True) -> dict[str, Any]:
    """Write, compare, train, score, export, report and refuse; the row of the table."""
    began = time.perf_counter()
    shutil.rmtree(root, ignore_errors=True)
    data, run = root / "data", root / "run"
    files = one.write_collection(data)
    equal = compare(one, files)
    train = ["train", *TINY, "data=folder", f"data_dir={data}", *one.options]
    printed = checked([*train, f"run.root={root}"], in_process)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "epoch"]
    where = ["--data-dir", str(data), "--cache", str(root / "cache")]
    knn = ["knn", str(run), *where, "--json", str(root / "knn.json")]
    checked(knn, in_process)
    to = ["--to", "safetensors", "--out", str(root / "exported")]
    exported = checked(["export", str(run), *to], in_process)
    shown = ["--images", "6", "--no-figures", "--out", str(root / "report")]
    checked(["report", str(run), *shown], in_process)
    broken(files[0])
    code, text = run_command(
        [*train, f"run.root={root / 'again'}", "data.max_corrupt=0"], in_process
    )
    assert code, f"a broken file of {one.name} went unnoticed:\n{text[-2000:]}"
    message = message_of(text)
    assert files[0].name in message, message
    return {
        "format": one.name,
        "version": importlib.metadata.version(_DISTRIBUTIONS.get(one.package, one.package)),
        "images": int(re.findall(r"folder: ([\d,]+) images", printed)[0].replace(",", "")),
        "equal": equal,
        "losses": losses,
        "knn": json.loads((root / "knn.json").read_text())["results"][0]["accuracy"],
        "export_difference": float(re.findall(r"safetensors +([\d.e+-]+)", exported)[0]),
        "report_bytes": (root / "report" / "report.html").stat().st_size,
        "refusal": message.replace(str(root), "ROOT"),
        "seconds": time.perf_counter() - began,
    }


def cells(row: dict[str, Any]) -> list[str]:
    """The row as text."""
    first, last = row["losses"]
    refusal = row["refusal"].splitlines()[-1].strip()
    return [
        row["format"], row["version"], f"{row['images']}", f"{row['equal']}",
        f"{first:.2f}, {last:.2f}", f"{100 * row['knn']:.0f}", f"{row['export_difference']:.1e}",
        f"{row['report_bytes'] / 1e6:.1f}", refusal.replace("|", "/"),
    ]  # fmt: skip


def write_result(found: dict[str, Any], out: str, in_process: bool) -> None:
    from convit_ssl.evaluation.results import commit, hardware, record_folder, versions, write_json

    date = time.strftime("%Y-%m-%d", time.gmtime())
    command = f"python tests/integration/every_format.py --out {out}"
    command += " --in-process" if in_process else ""
    processes = "All commands ran in one process" if in_process else "Each command was a process"
    about = {"commit": commit(), "versions": versions(), "hardware": hardware(), "date": date}
    folder = record_folder(f"{out}_{date}")
    write_json({"command": command, **about, **found}, folder / "result.json")
    table = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, found["formats"])]
    names = ("library", "files", "images in them", "files that both refuse", "differ")
    libraries = [
        [r["library"], str(r["files"]), str(r["images"]), str(r["refused"]),
         ", ".join(r["other"]) or "none"] for r in found["libraries"]
    ]  # fmt: skip
    (folder / "README.md").write_text(
        f"# Every image format, from files to a report\n\n`{command}`, {date}, commit "
        f"{about['commit']}.\n\n{about['hardware']['cpu']}, {about['hardware']['cores']} cores; "
        f"torch {about['versions']['torch']}. {processes}.\n\n"
        "A collection of two classes in each format, written by the library of the format. "
        "*Equal*: images of train and val (of slides, three tiles a slide) whose numbers are "
        "those that the library reads. A ConViT of 30 thousand weights is trained for two epochs; "
        "`knn`, `export --to safetensors` and `report` follow. kNN tells that the commands fit "
        "together, not how good features are after two epochs. In the end one file is cut in "
        "half, and training with `data.max_corrupt=0` is refused with the last column's line.\n\n"
        + "\n".join("| " + " | ".join(row) + " |" for row in table)
        + "\n\n## The libraries' own test files\n\nRead by this project and by the library, number "
        "by number. Files without an image, or too damaged for the library, are refused by both. "
        "OpenSlide brings none: regions of all levels of three pyramids of our own (Aperio and any "
        "tiled TIFF) are compared with it, where it is installed.\n\n"
        + "\n".join("| " + " | ".join(row) + " |" for row in [names, ["---"] * 5, *libraries])
        + "\n"
    )


def main() -> int:
    """Walk through every format, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="a folder for everything")
    parser.add_argument("--only", default="", help="formats whose name holds this")
    parser.add_argument("--in-process", action="store_true", help="faster: no process for each")
    parser.add_argument("--out", metavar="results/NAME", help="write to the folder NAME_<date>")
    args = parser.parse_args()
    rows, left_out = [], []
    for number, one in enumerate(FORMATS):
        if args.only.lower() not in one.name.lower():
            continue
        if importlib.util.find_spec(one.package) is None:
            left_out.append(one.name)
            continue
        rows.append(walk(one, args.root / f"{number:02d}", args.in_process))
        print(" | ".join(cells(rows[-1])), f"| {rows[-1]['seconds']:.0f} s", flush=True)
    libraries = [
        compare_library(name) for name in LIBRARIES if importlib.util.find_spec(name) is not None
    ]
    if importlib.util.find_spec("openslide") is not None:
        from tests.integration.openslide_files import compare_openslide

        (args.root / "openslide").mkdir(parents=True, exist_ok=True)
        libraries.append(compare_openslide(args.root / "openslide"))
    for row in libraries:
        print(row)
    print("left out, not installed:", ", ".join(left_out) or "none")
    if args.out:
        write_result({"formats": rows, "libraries": libraries, "left_out": left_out}, args.out,
                     args.in_process)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
