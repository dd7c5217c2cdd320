"""Every kind of damage in every command that reads weights, run for real: the table of outcomes.

``python -m tests.fault_matrix --record results/fault_matrix_cpu_2026-11-30`` trains a small
network for two epochs, damages its newest checkpoint in each way, and runs each command on the
result. An outcome is right (the answer of undamaged weights), a fallback that was said (the answer
of the checkpoint before), or one message. Anything else is silent, and counted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convit_ssl.checksums import numbered_checkpoints, say_once
from convit_ssl.cli.main import main as convit_ssl
from convit_ssl.evaluation.results import commit, hardware, now, record_folder, versions
from convit_ssl.export import load_trunk
from convit_ssl.export.files import ENTRY
from convit_ssl.models.fingerprint import weights_fingerprint
from tests.unit.test_fault_matrix import spoil

SMALL = [
    "data=digits", "run=cpu", "trunk=convit_nano", "trunk.patch_size=4", "crops.global_size=8",
    "data.workers=0", "data.subset=per_class=10", "optim.batch_size=20", "optim.epochs=2",
    "run.threads=1", "run.tensorboard=false",
]  # fmt: skip
DATA = ["--data", "digits", "--subset", "per_class=10"]
FAULTS = (
    "none", "truncated", "zeroed part", "one bit", "empty", "missing", "swapped", "foreign",
    "older format",
)  # fmt: skip
DIGITS = (
    rb'"accuracy": 0\.(\d)', rb'"knn": 0\.(\d)', rb'"seconds": (\d)', rb'"num_heads": (\d)',
    rb"learning_rate: .*(\d)", rb"epochs: (\d)", rb"(\d)\.png", rb"(\d),",
)  # fmt: skip
RIGHT, FALLBACK, MESSAGE, SILENT = "right", "fallback, said", "one message", "SILENT"
NOTHING = "left out, said"
MESSAGES = "^(?:convit-ssl [a-z]+: (?!importing)|failed: )"
WORDS = "damaged|not what|cannot (be )?read|skipped|No such file|contains no|holds no|missing"


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


def _train(folder: Path) -> Ran:
    return in_child(["train", "config=convit_simclr", *SMALL, f"run.dir={folder}"])


def _resume(folder: Path, out: Path) -> Ran:
    ran = _train(folder)
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


def damage(folder: Path, fault: str, target: str) -> bool:
    """Damage a run folder; False where there is no such fault of such a file."""
    if fault == "none":
        return True
    if target == "checkpoint":
        older, newest = numbered_checkpoints(folder / "checkpoints")[-2:]
    elif target == "cache":
        older, newest = sorted((folder / "cache").rglob("features.npy"))[:2]
    else:
        newest = next(folder.glob(target))
        other = "metrics.jsonl" if newest.name == "result.json" else "result.json"
        older = folder / other
    if fault == "swapped":
        first, second = older.read_bytes(), newest.read_bytes()
        older.write_bytes(second)
        newest.write_bytes(first)
    elif fault == "older format" and target == "checkpoint":
        _age(newest)
    elif fault == "older format":
        return target != "cache" and _without_checksum(newest)
    elif fault == "one bit" and target not in ("checkpoint", "cache"):
        _other_digit(newest)
    else:
        spoil(newest, fault)
    return True


def _other_digit(path: Path) -> None:
    """Turn the lowest bit of a digit that is read: of a figure, a number of heads, a file name."""
    data = bytearray(path.read_bytes())
    found = next(found for pattern in DIGITS if (found := re.search(pattern, bytes(data))))
    data[found.start(1)] ^= 1
    path.write_bytes(data)


def _without_checksum(path: Path) -> bool:
    """As versions wrote it that had no checksums in small files."""
    text = path.read_text()
    path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
    path.write_text(
        re.sub(r',\s*"(content_sha256|crc32)": "\w+"|# content_sha256: \w+\n', "", text)
    )
    return True


def _age(path: Path) -> None:
    """As versions wrote it that had no checksums and fewer options."""
    content = torch.load(path, weights_only=False)
    content[ENTRY]["model"].pop("use_pos_embed", None)
    content[ENTRY]["model"].pop("pos_embed_std", None)
    torch.save(content, path)
    path.with_suffix(".sha256").unlink(missing_ok=True)


def outcome(ran: Ran, answers: dict[str, Any], target: str = "checkpoint") -> str:
    """Which of the four it was."""
    if "Traceback" in ran.text:
        return f"{SILENT}: traceback"
    if ran.code != 0:
        messages = re.findall(MESSAGES, ran.text, re.MULTILINE)
        return MESSAGE if len(messages) == 1 else f"{SILENT}: {len(messages)} messages"
    said = " instead" in ran.text or "damaged" in ran.text or "is missing" in ran.text
    if said and ran.answer == answers["older"]:
        return FALLBACK
    if ran.text.count("left out: ") and ran.text.count("is damaged") >= 2:
        return NOTHING  # a report without a network, whose page says why
    if ran.answer == answers["newest"]:
        return RIGHT
    if "No checkpoint in checkpoints/" in ran.text:
        return NOTHING
    name = target.rpartition("/")[2]
    said = any(name in line and re.search(WORDS, line) for line in ran.text.splitlines())
    if name not in ("checkpoint", "cache") and (said or "left out: " in ran.text):
        return NOTHING
    return f"{SILENT}: another answer"


def run_matrix(
    root: Path, names: list[str], table: dict[str, dict[str, str]], kept: Callable[[], object]
) -> None:
    """Outcomes by command and fault, into the table; `kept` is called after each command."""
    whole = root / "run"
    trained = _train(whole)
    assert trained.code == 0, trained.text
    before = root / "older" / "run"
    shutil.copytree(whole, before, symlinks=True)
    newest = numbered_checkpoints(before / "checkpoints")[-1]
    newest.unlink()
    newest.with_suffix(".sha256").unlink()
    last = before / "checkpoints" / "last.torch"
    last.unlink()
    last.symlink_to(numbered_checkpoints(before / "checkpoints")[-1].name)
    for name in names:
        command, row = COMMANDS[name], {}
        table[name] = row
        for which, source in (("newest", whole), ("older", before)):
            command.answers[which] = _on_copy(command, source, root, "none")[0].answer
        if name == "resume":  # it trains the lost epoch again, to the same weights
            command.answers["older"] = command.answers["newest"]
        for fault in FAULTS:
            began = time.monotonic()
            ran, there = _on_copy(command, whole, root, fault)
            row[fault] = outcome(ran, command.answers, command.target) if there else "no such thing"
            print(f"{name:24} {fault:14} {row[fault]:20} {time.monotonic() - began:5.1f} s")
            if row[fault].startswith(SILENT):
                print("    " + ran.text[-1500:].replace("\n", "\n    "))
            sys.stdout.flush()
        kept()


def _on_copy(command: Command, source: Path, root: Path, fault: str) -> tuple[Ran, bool]:
    place = root / "work"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place / "run", symlinks=True)
    (place / "out").mkdir()
    if command.target == "cache":
        (place / "first").mkdir()
        command.run(place / "run", place / "first")
    if command.prepare is not None:
        _prepared(command, place / "run", root / "ready" / source.parent.name)
    if not damage(place / "run", fault, command.target):
        return Ran(0, ""), False
    return command.run(place / "run", place / "out"), True


def _prepared(command: Command, run: Path, kept: Path) -> None:
    """What a command reads, made once; its place is the same for each fault."""
    assert command.prepare is not None
    if command.is_ready == str(kept):
        shutil.rmtree(run)
        shutil.copytree(kept, run, symlinks=True)
        return
    ready = command.prepare(run, run.parent / "out")
    assert ready.code == 0, ready.text
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(run, kept, symlinks=True)
    command.is_ready = str(kept)


def markdown(table: dict[str, dict[str, str]], silent: int) -> str:
    """The table, commands in rows."""
    lines = [
        "# Fault matrix",
        "",
        "Outcome of every reading command on a run whose newest checkpoint (or, where named, "
        "result file or cached features) is damaged. Made by `python -m tests.fault_matrix`; "
        "`right`: the answer of undamaged weights; `fallback, said`: that of the checkpoint "
        "before, and the command says so (resuming trains the lost epoch again and ends with the "
        "same weights); `one message`: refused; `left out, said`: a report or a run without "
        "what was damaged, or a table that people may edit, with a note. In small files `one bit` "
        "turns a digit of a figure; those of `older format` have no checksum.",
        "",
        f"Silent: {silent} of {sum(len(row) for row in table.values())}.",
        "",
        "| command | " + " | ".join(FAULTS) + " |",
        "|---" * (len(FAULTS) + 1) + "|",
    ]
    lines += [f"| {name} | " + " | ".join(row.values()) + " |" for name, row in table.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run, print and record; 1 where an outcome is silent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, help="write to this folder")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="of parts, not run")
    args = parser.parse_args()
    if args.merge:
        parts = [json.loads(path.read_text()) for path in args.merge]
        found = {name: row for part in parts for name, row in part["table"].items()}
        ran = sorted({part["commit"] for part in parts})
        return _record({name: found[name] for name in COMMANDS if name in found}, args.record, ran)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        table: dict[str, dict[str, str]] = {}
        run_matrix(Path(folder), args.commands, table, lambda: _record(table, args.record))
    return _record(table, args.record)


def _record(
    table: dict[str, dict[str, str]], stem: Path | None, ran: list[str] | None = None
) -> int:
    """Print and write the table; `ran` are the commits of parts that are put together."""
    silent = sum(cell.startswith(SILENT) for row in table.values() for cell in row.values())
    text = markdown(table, silent)
    print(text)
    if stem:
        record = {
            "table": table, "silent": silent, "commit": commit(), "time": now(),
            "versions": versions(), "hardware": hardware(), **({"ran_at": ran} if ran else {}),
        }  # fmt: skip
        place = record_folder(stem)
        (place / "README.md").write_text(text)
        (place / "result.json").write_text(json.dumps(record, indent=2) + "\n")
    return int(silent > 0)


if __name__ == "__main__":
    sys.exit(main())
