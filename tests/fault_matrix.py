"""Every kind of damage in every command that reads weights, run for real: the table of outcomes.

``python -m tests.fault_matrix --record results/fault_matrix_cpu`` trains a small
network for two epochs, damages its newest checkpoint in each way, and runs each command on the
result. An outcome is right (the answer of undamaged weights), a fallback that was said (the answer
of the checkpoint before), or one message. Anything else is silent, and counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from convit_ssl.checksums import numbered_checkpoints
from convit_ssl.evaluation.results import commit, hardware, now, record_folder, versions
from convit_ssl.export.files import ENTRY
from tests.fault_commands import COMMANDS, Command, Ran, train
from tests.unit.test_fault_matrix import spoil

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
# Lines that say how long a command has been at work are no messages.
MESSAGES = r"^(?:convit-ssl [a-z]+: (?!importing |working, |.* after \d+ s$)|failed: )"
WORDS = "damaged|not what|cannot (be )?read|skipped|No such file|contains no|holds no|missing"


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
    trained = train(whole)
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
    parser.add_argument(
        "--record", type=lambda text: Path(text).absolute(), help="write to this folder"
    )
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="of parts, not run")
    args = parser.parse_args()
    if args.merge:
        parts = [json.loads(path.read_text()) for path in args.merge]
        found = {name: row for part in parts for name, row in part["table"].items()}
        ran = sorted({one for part in parts for one in part.get("ran_at", [part["commit"]])})
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
