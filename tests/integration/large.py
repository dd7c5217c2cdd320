"""1.3 million files and a table of a million features: how long, and how much memory?

    python tests/integration/large.py --root /tmp/large --out results/large_cpu

Links one image 1,300 times in each of 1,000 folders, opens that as a collection in a process of its
own, reads images of two million paths in a loader worker, and looks up the neighbours of some
images in a table of a million rows. Run by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

OPEN = """
import json, pickle, sys, time
from convit_ssl.data import open_dataset
from convit_ssl.machine import peak_resident_mib
before, start = peak_resident_mib(), time.perf_counter()
data = open_dataset("folder", sys.argv[1])
seconds = time.perf_counter() - start
print(json.dumps({"images": len(data), "seconds": seconds, "mib": peak_resident_mib() - before,
                  "to_a_worker_mib": len(pickle.dumps(data)) / 2**20}))
"""
WORKER = """
import json, sys
from pathlib import Path
import torch
from PIL import Image
from torch.utils.data import DataLoader
from convit_ssl.data import ImageFiles
from convit_ssl.data.listing.folders import Listing
paths, root = int(sys.argv[1]), Path(sys.argv[2])
def own_mib(process):
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    found = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    return (found["Private_Clean:"] + found["Private_Dirty:"]) / 1024
def nothing(picture):
    return 0
root.mkdir(parents=True, exist_ok=True)
Image.new("RGB", (8, 8)).save(root / "a.png")
names = ["./" * (number % 20) + "a.png" for number in range(paths)]  # of one file
targets = [number % 1000 + 300 for number in range(paths)]
listing = Listing(root, names, targets, list(map(str, range(1300))))
data = ImageFiles(listing, nothing, cache_bytes=0)
order = torch.randperm(paths)[:20_000].tolist() if paths > 20_000 else [0] * 20_000
loader = DataLoader(data, 50, sampler=order, num_workers=1, multiprocessing_context="fork",
                    collate_fn=len, persistent_workers=True)
batches = iter(loader)
next(batches)
first = own_mib(batches._workers[0].pid)
for _ in batches:
    pass
print(json.dumps({"paths": paths, "read": len(order), "first_mib": first,
                  "mib": own_mib(batches._workers[0].pid)}))
"""
LOOK = """
import json, sys, time
import torch
from convit_ssl.evaluation.probes.knn import nearest_neighbours
from convit_ssl.machine import peak_resident_mib
rows, width, queries = map(int, sys.argv[1:])
generator = torch.Generator().manual_seed(0)
table = torch.randn(rows, width, generator=generator).numpy()
asked = table[:: rows // queries][:queries]
before, start = peak_resident_mib(), time.perf_counter()
found, _ = nearest_neighbours(table, asked, k=20)
seconds = time.perf_counter() - start
own = torch.arange(0, rows, rows // queries)[:queries]
exact = bool((torch.as_tensor(found)[:, 0] == own).all())
print(json.dumps({"rows": rows, "width": width, "queries": queries, "seconds": seconds,
                  "mib": peak_resident_mib() - before, "table_mib": table.nbytes / 2**20,
                  "each_finds_itself": exact}))
"""


def answer(code: str, *words: object) -> dict[str, Any]:
    """What a process of its own prints."""
    command = [sys.executable, "-c", code, *map(str, words)]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def link_files(root: Path, classes: int, each: int) -> float:
    """Make the collection; seconds that the file system took."""
    from PIL import Image

    start = time.perf_counter()
    for number in range(classes):
        folder = root / "train" / f"class{number:04d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32), (number % 256, 0, 0)).save(folder / "0000.png")
        for copy in range(1, each):  # a file may have 65,000 names on ext4
            os.link(folder / "0000.png", folder / f"{copy:04d}.png")
    return time.perf_counter() - start


def workers_rows(workers: list[dict[str, Any]]) -> str:
    return "".join(
        f"| own memory of a forked loader worker, {one['paths']:,} paths, after {one['read']:,} "
        f"images, MiB | {one['mib']:.0f} |\n"
        for one in workers
    )


def write_result(found: dict[str, Any], out: str) -> None:
    from convit_ssl.evaluation.results import commit, hardware, record_folder, versions, write_json

    date = time.strftime("%Y-%m-%d", time.gmtime())
    command = "python tests/integration/large.py " + " ".join(sys.argv[1:])
    about = {"commit": commit(), "versions": versions(), "hardware": hardware(), "date": date}
    folder = record_folder(f"{out}_{date}")
    write_json({"command": command, **about, **found}, folder / "result.json")
    files, table = found["files"], found["table"]
    rows = workers_rows(found["workers"])
    (folder / "README.md").write_text(
        f"# Many files, many features\n\n`{command}`, {date}, commit {about['commit']}.\n\n"
        f"{about['hardware']['cpu']}, {about['hardware']['cores']} cores, load "
        f"{found['load_average']:.1f} at the end; torch {about['versions']['torch']}.\n\n"
        "| | |\n|---|---:|\n"
        f"| image files in class folders | {files['images']:,} |\n"
        f"| opened, seconds (from the page cache, just after writing) | {files['seconds']:.1f} |\n"
        f"| memory of the process that opens them, MiB | {files['mib']:.0f} |\n"
        f"| sent to a spawned loader worker, MiB | {files['to_a_worker_mib']:.0f} |\n"
        f"{rows}"
        f"| rows of a feature table, of {table['width']} floats | {table['rows']:,} |\n"
        f"| 20 neighbours of {table['queries']:,} rows, seconds | {table['seconds']:.1f} |\n"
        f"| memory beyond the table's {table['table_mib']:,.0f} MiB, MiB | {table['mib']:.0f} |\n"
        f"| each row finds itself first | {'yes' if table['each_finds_itself'] else 'no'} |\n"
    )


def main() -> int:
    """Make, measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--each", type=int, default=1300)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", metavar="results/NAME", help="write to the folder NAME_<date>")
    args = parser.parse_args()
    try:
        made = link_files(args.root, args.classes, args.each)
        files = answer(OPEN, args.root)
    finally:
        shutil.rmtree(args.root, ignore_errors=True)
    print(f"made in {made:.0f} s", files)
    workers = [answer(WORKER, paths, args.root) for paths in (2, 2_000_000)]
    shutil.rmtree(args.root, ignore_errors=True)
    print(workers)
    table = answer(LOOK, args.rows, 192, 1000)
    print(table)
    found = {"files": files, "workers": workers, "table": table, "load_average": os.getloadavg()[0]}
    if args.out:
        write_result(found, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
