"""The commands of the fault matrix: what each does with a run folder, and its answer."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl.checksums import say_once
from convit_ssl.cli.main import main as convit_ssl
from convit_ssl.export import load_trunk
from convit_ssl.models.fingerprint import weights_fingerprint

SMALL = [
    "data=digits", "run=cpu", "trunk=convit_nano", "trunk.patch_size=4", "crops.global_size=8",
    "data.workers=0", "data.subset=per_class=10", "optim.batch_size=20", "optim.epochs=2",
    "run.threads=1", "run.tensorboard=false",
]  # fmt: skip
DATA = ["--data", "digits", "--subset", "per_class=10"]


@dataclass
class Ran:
    """What a command did: its exit code, all that it printed, and its answer."""

    code: int
    text: str
    answer: Any = None


@dataclass
class Command:
    """A command of the matrix.

    Attributes:
        run: from the run folder and a folder for its files to what it did.
        target: what is damaged: checkpoint, cache, or a small file below the run folder.
        prepare: makes that file beforehand.
    """

    run: Callable[[Path, Path], Ran]
    target: str = "checkpoint"
    prepare: Callable[[Path, Path], Ran] | None = None
    answers: dict[str, Any] = field(default_factory=dict)
    is_ready: str = ""


def in_process(words: list[str]) -> Ran:
    """A command in this process, which saves its start."""
    say_once.cache_clear()
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code = convit_ssl(words)
        except SystemExit as error:
            code = int(error.code or 0) if isinstance(error.code, int | None) else 2
        except Exception as error:
            text.write(f"Traceback: {type(error).__name__}: {error}")
            code = 70
    return Ran(code, text.getvalue())


def in_child(words: list[str]) -> Ran:
    """A command that trains."""
    command = [sys.executable, "-m", "convit_ssl.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    return Ran(done.returncode, done.stdout + done.stderr)


def train(folder: Path) -> Ran:
    return in_child(["train", "config=convit_simclr", *SMALL, f"run.dir={folder}"])


def _resume(folder: Path, out: Path) -> Ran:
    ran = train(folder)
    if ran.code == 0:
        ran.answer = _fingerprint(folder)
    return ran


def _finetune(folder: Path, out: Path) -> Ran:
    options = ["run.threads=1", "data.workers=0", f"run.root={out}", "crops.global_size=8"]
    words = ["--epochs", "1", "--device", "cpu", "--name", "tuned", *options]
    ran = in_child(["finetune", str(folder), *DATA, *words])
    if ran.code == 0:
        ran.answer = _fingerprint(out / "tuned")
    return ran


def _study(folder: Path, out: Path) -> Ran:
    """A study that fine-tunes the run's weights once."""
    options = ["run.threads=1", "data.workers=0", "run.tensorboard=false", "crops.global_size=8"]
    words = (
        "study sample-efficiency --data digits --trunks convit_nano --fractions 1 --seeds 1 "
        f"--images-per-class 10 --epochs 1 --batch-size 20 --no-scratch --out {out / 's'} "
        f"--checkpoints convit_nano={folder} --set"
    ).split()
    ran = in_child([*words, *options])
    if ran.code == 0:
        ran.answer = _fingerprint(next((out / "s" / "runs").iterdir()))
    return ran


def _fingerprint(path: Path) -> str:
    return weights_fingerprint(load_trunk(path))


def _probe(name: str, *more: str) -> Callable[[Path, Path], Ran]:
    def run(folder: Path, out: Path) -> Ran:
        words = [*DATA, "--json", str(out / "r.json"), "--device", "cpu", *more]
        ran = in_process([name, str(folder), *words])
        if ran.code == 0:
            rows = json.loads((out / "r.json").read_text())["results"]
            ran.answer = [row["accuracy"] for row in rows]
        return ran

    return run


def _cached(folder: Path, out: Path) -> Ran:
    return _probe("knn", "--cache", str(folder / "cache"))(folder, out)


def _features(folder: Path, out: Path) -> Ran:
    ran = in_process(["features", str(folder), *DATA, "--out", str(out / "f"), "--device", "cpu"])
    if ran.code == 0:
        files = sorted((out / "f").rglob("features.npy"))
        ran.answer = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return ran


def _export(folder: Path, out: Path) -> Ran:
    words = ["--to", "safetensors", "--out", str(out / "e"), "--name", "t"]
    ran = in_process(["export", str(folder), *words])
    if ran.code == 0:
        ran.answer = _fingerprint(out / "e" / "t.safetensors")
    return ran


def _import(folder: Path, out: Path) -> Ran:
    ran = in_process(["import", str(folder), "--out", str(out / "i.safetensors")])
    if ran.code == 0:
        ran.answer = _fingerprint(out / "i.safetensors")
    return ran


def _audit(folder: Path, out: Path) -> Ran:
    ran = in_process(["audit", str(folder), "--heads"])
    lines = [line for line in ran.text.splitlines() if str(folder) not in line]
    if ran.code in (0, 1) and "convit-ssl audit: " not in ran.text:
        ran.code, ran.answer = 0, [line for line in lines if "checkpoint" not in line]
    return ran


def _attention(folder: Path, out: Path) -> Ran:
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(picture).save(out / "x.png")
    words = [str(out / "x.png"), "--checkpoint", str(folder), "--out", str(out / "a.png")]
    ran = in_process(["attention", *words])
    if ran.code == 0:
        ran.answer = hashlib.sha256(np.asarray(Image.open(out / "a.png")).tobytes()).hexdigest()
    return ran


def _report(folder: Path, out: Path) -> Ran:
    words = ["--out", str(out / "p"), "--images", "30", "--layout", "pca", "--no-figures"]
    ran = in_process(["report", str(folder), *words])
    if ran.code == 0:
        numbers = json.loads(next((out / "p").glob("*.json")).read_text())
        run = numbers.get("runs", [numbers])[0]
        ran.answer = json.dumps([run.get("now"), run.get("nonlocality"), run.get("heads")])
        ran.text += json.dumps(run.get("problems"))
    return ran


def _page(folder: Path, out: Path) -> Ran:
    """A report, of which everything counts that comes from small files."""
    ran = _report(folder, out)
    if ran.code == 0:
        numbers = json.loads(next((out / "p").glob("*.json")).read_text())
        run = numbers.get("runs", [numbers])[0]
        verdict = re.findall(r'"verdict":\{"text":"[^"]*', (out / "p" / "report.html").read_text())
        told = [run["facts"], run["curves"], run["config"], verdict]
        ran.answer = json.dumps(told).replace(str(folder.parent), "")
    return ran


def _measured(folder: Path, out: Path) -> Ran:
    return _probe("knn", "--write-split", str(folder / "split.csv"), "--holdout", "0.3")(
        folder, folder
    )


def _split(folder: Path, out: Path) -> Ran:
    return _probe("knn", "--split", str(folder / "split.csv"))(folder, out)


def _card(folder: Path, out: Path) -> Ran:
    """An export whose card shows what kNN measured."""
    words = ["--to", "safetensors", "--out", str(out / "e"), "--name", "t"]
    ran = in_process(["export", str(folder), *words, "--results", str(folder / "r.json")])
    if ran.code == 0:
        lines = (out / "e" / "README.md").read_text().splitlines()
        ran.answer = [line for line in lines if " %" in line]
    return ran


def _exported(folder: Path, out: Path) -> Ran:
    return in_process(["export", str(folder), "--to", "hf", "--out", str(folder / "e")])


def _read_export(folder: Path, out: Path) -> Ran:
    words = [*DATA, "--json", str(out / "r.json"), "--device", "cpu"]
    ran = in_process(["knn", str(folder / "e" / "hf"), *words])
    if ran.code == 0:
        rows = json.loads((out / "r.json").read_text())["results"]
        ran.answer = [row["accuracy"] for row in rows]
    return ran


def _study_again(folder: Path, out: Path) -> Ran:
    """The same study in the same folder: it reads what it wrote down."""
    ran = _study(folder, folder)
    if ran.code == 0:
        rows = json.loads((folder / "s" / "results.json").read_text())["results"]
        ran.answer = [[row["accuracy"], row["seconds"] is not None] for row in rows]
    return ran


def _results(folder: Path, out: Path) -> Ran:
    ran = in_process(["results", str(folder)])
    ran.answer = ran.text if ran.code == 0 else None
    return ran


COMMANDS = {
    "knn": Command(_probe("knn")),
    "linear": Command(_probe("linear", "--epochs", "3", "--no-logistic")),
    "features": Command(_features),
    "export": Command(_export),
    "import": Command(_import),
    "audit": Command(_audit),
    "report": Command(_report),
    "attention": Command(_attention),
    "finetune": Command(_finetune),
    "study": Command(_study),
    "resume": Command(_resume),
    "results (result.json)": Command(_results, "result.json"),
    "report (result.json)": Command(_page, "result.json"),
    "report (metrics.jsonl)": Command(_page, "metrics.jsonl"),
    "report (config.yaml)": Command(_page, "config.yaml"),
    "resume (config.yaml)": Command(_resume, "config.yaml"),
    "resume (metrics.jsonl)": Command(_resume, "metrics.jsonl"),
    "export (figures of its card)": Command(_card, "r.json", _measured),
    "knn (a split written before)": Command(_split, "split.csv", _measured),
    "knn (config.json of an export)": Command(_read_export, "e/hf/config.json", _exported),
    "study (record of a run)": Command(_study_again, "s/runs/*/study_run.json", _study_again),
    "study (result.json of a run)": Command(_study_again, "s/runs/*/result.json", _study_again),
    "knn (cached features)": Command(_cached, "cache"),
}
