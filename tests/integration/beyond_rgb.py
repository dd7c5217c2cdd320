"""Do channels beyond RGB and numbers beyond 8 bits reach the features?

    python tests/integration/beyond_rgb.py --root /tmp/beyond --out results/beyond_rgb_cpu

Draws two collections anew for each seed and pretrains on each in several ways:

- *channels*: 16-bit TIFF of four channels, of which the fourth alone tells the classes; trained
  on all of them and on the first three.
- *ct*: DICOM of signed 16 bits; two classes of lung, clear and with ground-glass spots, with
  bone, and metal in half of the images; trained in 8 bits and in native depth, each with and
  without a window.

Weighted 20-NN on held-out images, of the trained network, of the untrained one and of pixels; mean
and 95 % interval over the seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

Array = np.ndarray[Any, Any]
SIDE = 32
TRAIN = [
    *("run=cpu", "trunk=convit_nano", "trunk.embed_dim=96"),
    *("trunk.depth=4", "trunk.num_gpsa_layers=3", "trunk.patch_size=4", "crops.global_size=32"),
    *("optim.batch_size=50", "run.threads=1", "run.precision=fp32", "data.workers=0"),
    *("run.tensorboard=false", "watch.every=0", "run.name=run", "data=folder"),
]
METHODS = {"channels": "config=convit_dino", "ct": "config=convit_simclr"}
EPOCHS = {"channels": 4, "ct": 10}
ARMS: dict[str, dict[str, tuple[str, ...]]] = {
    "channels": {
        "all four": ("data.channels=all",),
        "the first three": ("data.channels=[1,2,3]",),
    },
    "ct": {
        "8 bits": (),
        "native depth": ("data.depth=native",),
        "8 bits, window -1000:400": ("data.window=-1000:400",),
        "native depth, window -1000:400": ("data.depth=native", "data.window=-1000:400"),
    },
}
NETWORKS = ("trained", "untrained", "pixels")


def channels(path: Path, label: int, rng: np.random.Generator) -> None:
    """Noise in three channels; in the fourth stripes, whose direction is the class."""
    import tifffile

    from tests.unit.data.make_channels import four_channels

    names = {"axes": "CYX", "Channel": {"Name": ["red", "green", "blue", "nir"]}}
    values = four_channels(label, rng, SIDE).transpose(2, 0, 1)
    tifffile.imwrite(path.with_suffix(".ome.tif"), values, metadata=names)


def lung(label: int, rng: np.random.Generator) -> Array:
    """(side, side) in Hounsfield units: a chest whose lung is clear, or has ground-glass spots."""
    import cv2

    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot(y - SIDE / 2 + rng.normal(), x - SIDE / 2 + rng.normal())
    units = np.full((SIDE, SIDE), -1000.0)
    body, bone, inside = radius < 15, np.abs(radius - 13) < 1, radius < 11
    units[body] = 40 + 15 * rng.normal(size=int(body.sum()))
    units[bone] = rng.uniform(700, 1800)
    tissue = rng.normal(-850, 30) + 20 * rng.normal(size=(SIDE, SIDE))
    if label:
        spots = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), 1.5) > 0.1
        tissue[spots] += rng.uniform(200, 300)
    units[inside] = tissue[inside]
    if rng.random() < 0.5:
        units[rng.integers(1, 4), rng.integers(10, 22)] = 30000  # metal
    return np.rint(units).astype(np.int16)


def ct(path: Path, label: int, rng: np.random.Generator) -> None:
    """A chest as DICOM."""
    import pydicom
    from pydicom.data import get_testdata_file

    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    data.Rows = data.Columns = SIDE
    data.RescaleIntercept = 0
    data.PixelData = lung(label, rng).tobytes()
    data.save_as(path.with_suffix(".dcm"))


WRITERS: dict[str, Callable[[Path, int, np.random.Generator], None]] = {
    "channels": channels,
    "ct": ct,
}


def collection(root: Path, name: str, seed: int, train: int, val: int) -> Path:
    """``train`` and ``val`` images of each of two classes."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for label in range(2):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                WRITERS[name](folder / f"{number}", label, rng)
    return root


def command(*arguments: str) -> None:
    """One command of the program, silently.

    Raises:
        AssertionError: it failed; with what it printed.
    """
    from convit_ssl.cli.main import main

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = main(list(arguments))
    assert not code, text.getvalue()[-3000:]


def accuracies(run: Path, data: Path) -> dict[str, float]:
    """kNN of the trained network, of the untrained one, and of pixels."""
    found = run / "knn.json"
    where = ["--data", "folder", "--data-dir", str(data), "--cache", str(run / "features")]
    command("knn", str(run), *where, "--references", "--on", "val", "--json", str(found))
    rows = json.loads(found.read_text())["results"]
    named = {name: next((r for r in rows if name in r["name"].lower()), None)
             for name in ("untrained", "pixels")}  # fmt: skip
    others = [id(row) for row in named.values()]
    trained = next(row for row in rows if id(row) not in others)
    return {
        name: float(row["accuracy"])
        for name, row in {"trained": trained, **named}.items()
        if row is not None
    }


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval by Student's t; the interval of one value is not known."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def measure(root: Path, seeds: list[int], train: int, val: int) -> list[dict[str, Any]]:
    """A row for each way of reading each collection."""
    rows = [
        {"collection": name, "read": arm, "options": list(options)}
        | {network: [] for network in NETWORKS}
        for name, arms in ARMS.items()
        for arm, options in arms.items()
    ]
    for seed in seeds:
        for name in ARMS:
            shutil.rmtree(root, ignore_errors=True)
            data = collection(root / "data", name, seed, train, val)
            for number, row in enumerate(row for row in rows if row["collection"] == name):
                out = root / str(number)
                command(
                    "train", METHODS[name], *TRAIN, f"data_dir={data}", f"run.root={out}",
                    f"seed={seed}", f"optim.epochs={EPOCHS[name]}", *row["options"],
                )  # fmt: skip
                found = accuracies(out / "run", data)
                for network in NETWORKS:
                    row[network].append(found[network])
                print(seed, name, row["read"], found, flush=True)
    return rows


def cells(row: dict[str, Any]) -> list[str]:
    """The row as text."""
    made = [row["collection"], row["read"]]
    for network in NETWORKS:
        mean, low, high = (100 * value for value in interval(row[network]))
        made.append(f"{mean:.1f} ({max(low, 0.0):.1f} to {min(high, 100.0):.1f})")
    return made


def write_result(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    from convit_ssl.evaluation.results import commit, hardware, record_folder, versions, write_json

    date = time.strftime("%Y-%m-%d", time.gmtime())
    command_line = f"python tests/integration/beyond_rgb.py --out {args.out}"
    about = {"commit": commit(), "versions": versions(), "hardware": hardware(), "date": date}
    settings = {"train": TRAIN, "methods": METHODS, "epochs": EPOCHS, "seeds": args.seeds,
                "images": {"train": 2 * args.train, "val": 2 * args.val}}  # fmt: skip
    folder = record_folder(f"{args.out}_{date}")
    found = {"command": command_line, **about, "settings": settings, "rows": rows}
    write_json(found, folder / "result.json")
    header = ["collection", "read as", *(f"kNN of {network}, %" for network in NETWORKS)]
    table = [header, ["---", "---", "---:", "---:", "---:"], *map(cells, rows)]
    (folder / "README.md").write_text(
        f"# Channels beyond RGB, numbers beyond 8 bits\n\n`{command_line}`, {date}, commit "
        f"{about['commit']}.\n\n{about['hardware']['cpu']}, {about['hardware']['cores']} cores; "
        f"torch {about['versions']['torch']}.\n\n"
        "Two collections, drawn anew for each seed. *channels*: OME-TIFF of four channels of 16 "
        "bits, of which the fourth alone tells the classes. *ct*: DICOM of signed 16 bits; lung "
        "that is clear, or has ground-glass spots of 200 to 300 HU; bone, and metal of 30,000 HU "
        f"in half of the images. {2 * args.train} images to train on, {2 * args.val} to test on, "
        f"{SIDE} px; weighted 20-NN, mean and 95 % interval over seeds "
        f"{', '.join(map(str, args.seeds))}. Chance is 50 %. The pictures are simple: that an "
        "untrained network tells the stripes apart shows that the channel arrives, not that "
        "pretraining was needed.\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in table)
        + "\n"
    )  # fmt: skip


def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="a folder for everything")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=100, help="images of a class to train on")
    parser.add_argument("--val", type=int, default=60, help="images of a class to test on")
    parser.add_argument("--out", metavar="results/NAME", help="write to the folder NAME_<date>")
    args = parser.parse_args()
    rows = measure(args.root, args.seeds, args.train, args.val)
    for row in rows:
        print(" | ".join(cells(row)))
    if args.out:
        write_result(rows, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
