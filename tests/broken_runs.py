"""Run folders that are broken in some way, in every command that takes one.

``python -m tests.broken_runs`` trains a small network for two epochs, breaks copies of its folder
in each way of `KINDS`, and gives each to knn, linear, features, export, import, audit, attention,
report, results and finetune. An outcome is right, a fallback to the checkpoint before that was
said, what the report leaves out and says, or one message. Anything else is silent, and counted; so
is a command that does not end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from convit_ssl.checksums import numbered_checkpoints
from convit_ssl.evaluation.results import commit, hardware, now, record_folder, versions
from tests.fault_commands import COMMANDS, Command, Ran, train
from tests.fault_matrix import SILENT, outcome

NAMES = (
    "knn", "linear", "features", "export", "import", "audit", "attention", "report",
    "results (result.json)", "finetune",
)  # fmt: skip
SECONDS = 120  # for one command


def newest(run: Path) -> Path:
    return numbered_checkpoints(run / "checkpoints")[-1]


def replace(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in the place of a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    make(path)


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda run: replace(run / name, make)


def instead_of_newest(make: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda run: replace(newest(run), make)


def sidecar(make: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda run: replace(newest(run).with_suffix(".sha256"), make)


def no_numbered(run: Path) -> None:
    for path in numbered_checkpoints(run / "checkpoints"):
        path.unlink()


def all_cut_short(run: Path) -> None:
    for path in numbered_checkpoints(run / "checkpoints"):
        path.write_bytes(path.read_bytes()[:-2000])


def no_sidecars(run: Path) -> None:
    for path in (run / "checkpoints").glob("*.sha256"):
        path.unlink()


def bare_weights(path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


def leftovers(run: Path) -> None:
    (run / ".lock").write_text("99999999")
    (run / "checkpoints" / ".checkpoint_e0003_s00000015.torch.partial-1").write_bytes(b"half")


def itself(path: Path) -> None:
    path.symlink_to(path.name)


def nowhere(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def emptied(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


KINDS: dict[str, Callable[[Path], object]] = {
    "an empty folder": emptied,
    "a file": lambda run: replace(run, noise),
    "a link to nowhere": lambda run: replace(run, nowhere),
    "a link to itself": lambda run: replace(run, itself),
    "no checkpoints": lambda run: shutil.rmtree(run / "checkpoints"),
    "checkpoints is a file": replaced("checkpoints", noise),
    "checkpoints is empty": replaced("checkpoints", Path.mkdir),
    "checkpoints is a link to nowhere": replaced("checkpoints", nowhere),
    "last is a link to itself": replaced("checkpoints/last.torch", itself),
    "last is a folder": replaced("checkpoints/last.torch", Path.mkdir),
    "last is a pipe": replaced("checkpoints/last.torch", os.mkfifo),
    "last is missing": lambda run: (run / "checkpoints" / "last.torch").unlink(),
    "only last, which leads nowhere": no_numbered,
    "newest is a folder": instead_of_newest(Path.mkdir),
    "newest is a pipe": instead_of_newest(os.mkfifo),
    "newest is a link to nowhere": instead_of_newest(nowhere),
    "newest is a device": instead_of_newest(zero),
    "newest holds other tensors": instead_of_newest(bare_weights),
    "newest is text": instead_of_newest(text("not weights\n")),
    "all are cut short": all_cut_short,
    "no checksums": no_sidecars,
    "a checksum of something else": sidecar(text(f"{'0' * 64}  x\n")),
    "a checksum that is a folder": sidecar(Path.mkdir),
    "a checksum that is a pipe": sidecar(os.mkfifo),
    "a checksum that is noise": sidecar(noise),
    "config is missing": replaced("config.yaml", lambda path: None),
    "config is a folder": replaced("config.yaml", Path.mkdir),
    "config is a pipe": replaced("config.yaml", os.mkfifo),
    "config is a list": replaced("config.yaml", text("- 1\n- [2, 3]\n")),
    "config has other types": replaced("config.yaml", text("data: 3\noptim: [x]\ntrunk: 'no'\n")),
    "metrics are missing": replaced("metrics.jsonl", lambda path: None),
    "metrics are a folder": replaced("metrics.jsonl", Path.mkdir),
    "metrics are a pipe": replaced("metrics.jsonl", os.mkfifo),
    "metrics are noise": replaced("metrics.jsonl", noise),
    "metrics of other types": replaced(
        "metrics.jsonl", text('[1]\n{"epoch": "x", "knn": {}}\n3\n')
    ),
    "result is a folder": replaced("result.json", Path.mkdir),
    "result is a pipe": replaced("result.json", os.mkfifo),
    "result is a list": replaced("result.json", text("[[1], {}]\n")),
    "result of other types": replaced("result.json", text('{"accuracy": "x", "verdict": [1]}\n')),
    "log is a folder": replaced("log.txt", Path.mkdir),
    "files of a killed process": leftovers,
}


class TooLongError(Exception):
    """A command did not end."""


def ended(number: int, frame: FrameType | None) -> None:
    raise TooLongError(f"it did not end within {SECONDS} s")


def attempt(command: Command, run: Path, out: Path) -> Ran:
    signal.signal(signal.SIGALRM, ended)
    signal.alarm(SECONDS)
    try:
        return command.run(run, out)
    except TooLongError as error:
        return Ran(70, f"Traceback: {error}")
    except Exception as error:  # of what looks at the answer
        return Ran(70, f"Traceback: {type(error).__name__}: {error}")
    finally:
        signal.alarm(0)


def main() -> int:
    """Run; 1 where an outcome is silent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    parser.add_argument("--record", type=Path, metavar="results/NAME", help="folder of the table")
    args = parser.parse_args()
    kinds = {name: damage for name, damage in KINDS.items() if args.only in name}
    place = record_folder(args.record.absolute()) if args.record else None
    table = _recorded(place)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        root = Path(folder)
        assert train(root / "whole").code == 0
        for name in args.commands:
            column = table.setdefault(name, {})
            answers = _answers(COMMANDS[name], root)
            for kind in (kind for kind in kinds if kind not in column):
                column[kind] = _outcome(root, name, kind, answers)
                if place is not None:
                    _write(place, table)
    print(_sum(table))
    return int(_silent(table) > 0)


def _outcome(root: Path, name: str, kind: str, answers: dict[str, Any]) -> str:
    """Of a command on a copy of the run that is broken in this way; printed."""
    place = _fresh(root)
    KINDS[kind](place / "run")
    ran = attempt(COMMANDS[name], place / "run", place / "out")
    found = outcome(ran, answers, _target(kind, name))
    print(f"{kind:36} {name:22} {found}", flush=True)
    if found.startswith(SILENT):
        print("    " + ran.text[-1500:].replace("\n", "\n    "), flush=True)
    return found


def _recorded(place: Path | None) -> dict[str, dict[str, str]]:
    """Cells that this commit has run already: stopped, the same command resumes."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((place / "result.json").read_text()) if place is not None else {}
        if found.get("commit") == commit():
            return dict(found["table"])
    return {}


def _silent(table: dict[str, dict[str, str]]) -> int:
    return sum(cell.startswith(SILENT) for column in table.values() for cell in column.values())


def _sum(table: dict[str, dict[str, str]]) -> str:
    cells = sum(map(len, table.values()))
    return f"{cells} cells of {len(table)} commands, {_silent(table)} silent."


def _write(place: Path, table: dict[str, dict[str, str]]) -> None:
    """The page, kinds in rows and commands in columns, and its figures."""
    about = {"commit": commit(), "time": now(), "versions": versions(), "hardware": hardware()}
    (place / "result.json").write_text(json.dumps({**about, "table": table}, indent=1) + "\n")
    kinds = [kind for kind in KINDS if any(kind in column for column in table.values())]
    lines = [
        "# Broken run folders",
        "",
        "`python -m tests.broken_runs`: what each command says to a run folder that is broken. "
        "`right`: the answer of the whole run; `fallback, said`: that of the checkpoint before, "
        "and the command says so; `left out, said`: without what is broken, with a note; "
        "`one message`: refused. A cell without an outcome was not run.",
        "",
        _sum(table),
        "",
        f"| folder | {' | '.join(table)} |",
        "|---" * (len(table) + 1) + "|",
    ]
    for kind in kinds:
        cells = (column.get(kind, "") for column in table.values())
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    (place / "README.md").write_text("\n".join(lines) + "\n")


def _target(kind: str, name: str) -> str:
    """The small file that is broken; a report names it."""
    names = {"config": "config.yaml", "metrics": "metrics.jsonl", "result": "result.json"}
    return names.get(kind.split()[0], "checkpoint")


def _answers(command: Command, root: Path) -> dict[str, Any]:
    place = _fresh(root)
    whole = command.run(place / "run", place / "out")
    assert whole.code == 0, whole.text
    place = _fresh(root)
    newest(place / "run").unlink()
    older = command.run(place / "run", place / "out")
    return {"newest": whole.answer, "older": older.answer}


def _fresh(root: Path) -> Path:
    place = root / "work"
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place)
    shutil.copytree(root / "whole", place / "run", symlinks=True)
    (place / "out").mkdir()
    return place


if __name__ == "__main__":
    sys.exit(main())
