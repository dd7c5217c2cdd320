"""The test part is read once, for the table: no command that chooses opens it before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit_ssl.cli.main import main
from convit_ssl.cli.study.baselines import LINEAR, Baselines
from convit_ssl.export.save import save_trunk
from convit_ssl.models import create_model

opened: list[str] = []
_listening = False


def _listen() -> None:
    """Keep the name of every file that this process opens; such a hook stays for good."""
    global _listening
    if not _listening:
        sys.addaudithook(lambda event, args: _note(args[0]) if event == "open" else None)
        _listening = True
    opened.clear()


def _note(name: Any) -> None:
    if isinstance(name, str | bytes | os.PathLike):
        opened.append(os.fsdecode(name))


def of_part(part: str) -> list[str]:
    """Images of a part that were opened."""
    return [name for name in opened if f"{os.sep}{part}{os.sep}" in name and name.endswith(".png")]


def write_images(folder: Path, parts: dict[str, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    for part, count in parts.items():
        for label, name in enumerate(("ant", "bee", "cat")):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = generator.integers(0, 120, (8, 8, 3))
                pixels[..., label] += 40
                path = folder / part / name / f"{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", {"train": 12, "val": 6, "test": 6}, 0)
    return tmp_path / "images"


def probe(command: str, folder: Path, tmp_path: Path, *more: str) -> list[dict[str, Any]]:
    words = f"{command} random:convit_nano --img-size 16 16 --device cpu --workers 0".split()
    words += ["--data", "folder", "--data-dir", str(folder), "--json", str(tmp_path / "r.json")]
    words += ["--cache", str(tmp_path / "cache"), *more]
    assert main(words) == 0
    return list(json.loads((tmp_path / "r.json").read_text())["results"])


@pytest.mark.parametrize(
    "words", [("knn", "-k", "1", "5"), ("linear", "--epochs", "2")], ids=lambda words: words[0]
)
def test_a_probe_that_is_for_choosing_opens_train_and_val(
    words: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    _listen()
    probe(words[0], folder, tmp_path, *words[1:])
    assert len(set(of_part("train"))) == 36 and len(set(of_part("val"))) == 18
    assert of_part("test") == []


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a probe chose, without what it measured."""
    names = ("learning_rate", "token", "tokens", "penalty", "epochs", "k", "layers", "pooling")
    found = [{**row, **row.get("settings", {})} for row in rows]
    return [{name: row[name] for name in names if name in row} for row in found]


def test_what_is_chosen_does_not_depend_on_the_test_part(folder: Path, tmp_path: Path) -> None:
    words = ("--epochs", "2", "--on", "test")
    first = probe("linear", folder, tmp_path, *words)
    write_images(folder, {"test": 6}, 1)
    for path in (folder / "test" / "ant").iterdir():
        path.write_bytes((folder / "test" / "bee" / path.name).read_bytes())
    again = probe("linear", folder, tmp_path, *words)
    assert [row["accuracy"] for row in first] != [row["accuracy"] for row in again]
    assert chosen(first) == chosen(again)
    assert any(chosen(first))


def test_a_study_takes_the_method_that_is_best_on_held_out_images_of_train() -> None:
    study = Baselines.__new__(Baselines)
    study.args = type("", (), {"methods": ["dino", "simclr"]})()  # type: ignore[assignment]
    study.cells = [
        {"row": "dino", "probes": {LINEAR: {"accuracy": 0.9, "held_out": 0.5}}},
        {"row": "simclr", "probes": {LINEAR: {"accuracy": 0.1, "held_out": 0.6}}},
    ]
    assert study.best_method() == "simclr"


CHILD = """
import json, os, sys
from pathlib import Path
folder, out = sys.argv[1], Path(sys.argv[2])
early = []
def note(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        name = os.fsdecode(args[0])
        if f"{os.sep}test{os.sep}" in name and name.endswith(".png"):
            lines = out.read_text().splitlines() if out.exists() else []
            early.append(sum('"kind": "epoch"' in line for line in lines))
sys.addaudithook(note)
from convit_ssl.cli.main import main
code = main(sys.argv[3:])
print("EARLIEST", min(early, default=None), "OF", len(early))
sys.exit(code)
"""


def run_a_child(folder: Path, tmp_path: Path, words: str) -> tuple[str, int]:
    """Train; epochs that were written when test was first opened, and how often it was."""
    words += (
        f" run.root={tmp_path} run.threads=1 run.tensorboard=false data.workers=0 watch.every=1 "
        "optim.batch_size=12 crops.global_size=8"
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(metrics), *words.split()],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("EARLIEST"))
    return line.split()[1], int(line.split()[3])


TINY = "trunk.embed_dim=32 trunk.depth=2 trunk.num_gpsa_layers=1 trunk.patch_size=4"


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["convit_simclr", "convit_supervised", "finetune"])
def test_training_opens_test_in_its_last_evaluation(
    experiment: str, folder: Path, tmp_path: Path
) -> None:
    if experiment == "finetune":
        save_trunk(create_model("convit_nano", img_size=8, patch_size=4), tmp_path / "trunk.pth")
        words = f"finetune {tmp_path}/trunk.pth --data folder --data-dir {folder} --device cpu"
        words += " --epochs 2 --name run"
    else:
        words = f"train config={experiment} data=folder data_dir={folder} run=cpu {TINY}"
        words += " trunk=convit_nano optim.epochs=2 run.name=run"
    earliest, times = run_a_child(folder, tmp_path, words)
    # The verdict belongs to the last epoch's evaluation, whose line is written after it.
    assert earliest == "None" or int(earliest) >= 1
    # Once for the trained network, the untrained one and raw pixels, and once for a classifier.
    assert times in (0, 18 if experiment == "convit_simclr" else 36)
