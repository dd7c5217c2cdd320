"""Every parser of files, on damaged and random bytes: a value, or one message, soon.

About 40 seconds, always the same files; CONVIT_SSL_FUZZ_SECONDS=3600 looks for an hour, each parser
for an equal share, from another seed each time. By hand, with a count; the same command again
adds to what FOLDER holds, and the last word is the folder of a result::

    python tests/bad_input/test_fuzz.py FOLDER 3600 results/fuzz_cpu_2026-11-30
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from convit_ssl.evaluation.results import commit, hardware, now, record_folder, versions
from tests.bad_input.parsers import PARSERS, Parser

SECONDS = float(os.environ.get("CONVIT_SSL_FUZZ_SECONDS", "40"))
BRIEF = SECONDS <= 60
FILES = 200  # of each parser in a brief run: a faster machine does not find more
LONGEST_READ = 20.0  # seconds of one file; a limit of the parsers, not a measure of the machine


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_any_bytes_give_a_value_or_one_message(name: str, tmp_path: Path) -> None:
    draw = random.Random(0 if BRIEF else int.from_bytes(os.urandom(4), "big"))
    ends = time.monotonic() + SECONDS / len(PARSERS)
    files = damaged_files(PARSERS[name], tmp_path, draw, ends)
    for _ in itertools.islice(files, FILES if BRIEF else None):
        pass


def damaged_files(parser: Parser, folder: Path, draw: random.Random, ends: float) -> Iterator[Path]:
    """Read damaged files until the time is over; each is left where it lies if it does harm."""
    seeds = parser.seeds()
    path = folder / parser.name
    while time.monotonic() < ends:
        data = damaged(draw, draw.choice(seeds), draw.choice(seeds))
        path.write_bytes(data)
        try:
            with limited(LONGEST_READ), contextlib.suppress(parser.refusals):
                parser.read(path)
        except BaseException:
            (folder / f"found-{parser.name}").write_bytes(data)
            raise
        yield path


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise in what takes more time of the processor, or waits for long. The main thread alone."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"reading took over {seconds:g} s")

    clocks = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}
    before = {number: signal.signal(number, late) for number in clocks.values()}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 30 * seconds)  # other programs may have the processor
    try:
        yield
    finally:
        for clock, number in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(number, before[number])


_VALUES = (b"0", b"-1", b"1e999", b"null", b"NaN", b"true", b"[", b"{", b"}", b'"', b",", b"\n",
           b"\x00", b"\xff", b"1" * 30, b"[[", b'"x"', b"{}", b"[]", b": ")  # fmt: skip


def damaged(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """A few bytes changed, cut, doubled, drawn anew or from another; more often near the start."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        place = int(len(changed) * draw.random() ** 2)
        kind = draw.randrange(7)
        if kind == 0 and changed:
            changed[min(place, len(changed) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[place:place] = draw.randbytes(draw.randrange(1, 9))
        elif kind == 2:
            del changed[place : place + draw.randrange(1, 33)]
        elif kind == 3:
            part = changed[place : place + draw.randrange(1, 65)]
            changed[place:place] = part
        elif kind == 4:
            value = draw.choice(_VALUES)
            changed[place : place + len(value)] = value
        elif kind == 5:  # a value in place of another, in text
            _replace_word(draw, changed)
        else:
            start = draw.randrange(len(other) or 1)
            changed[place : place + 40] = other[start : start + draw.randrange(1, 41)]
    return bytes(changed)


def _replace_word(draw: random.Random, changed: bytearray) -> None:
    """Put something else between two signs that part values."""
    places = [n for n, byte in enumerate(changed[:4000]) if byte in b' ,:[]{}\n"']
    if len(places) < 2:
        return
    first = draw.randrange(len(places) - 1)
    changed[places[first] + 1 : places[first + 1]] = draw.choice(_VALUES)


def main(folder: Path, seconds: float, result: str = "") -> int:
    """Look for as long, one second a parser in turn; print what was found as it is found."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    report = _report_so_far(folder)
    counts, found, before = report["files"], report["found"], report["seconds"]
    draw = random.Random(int.from_bytes(os.urandom(8), "big"))
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for name, parser in PARSERS.items():
            place = folder / name.replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            try:
                for _ in damaged_files(parser, place, draw, time.monotonic() + 1.0):
                    counts[name] += 1
            except Exception as error:
                counts[name] += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                key = f"{name}: {type(error).__name__} at {Path(where.filename).name}:{where.name}"
                if key not in found:
                    found[key] = str(error)[:200]
                    number = len(found)
                    (place / f"found-{parser.name}").rename(place / f"found-{number}-{parser.name}")
                    print(f"found {number}: {key}: {found[key]}", flush=True)
        report["seconds"] = round(before + time.monotonic() - began)
        (folder / "report.json").write_text(json.dumps(report, indent=1))
        if result:
            _write_result(record_folder(Path(result)), report)
    print(_sum(report))
    return bool(found)


def _report_so_far(folder: Path) -> dict[str, Any]:
    """Seconds, files by parser and what was found; those of the runs before, if they are there."""
    report: dict[str, Any] = {"seconds": 0, "files": {}, "found": {}}
    with contextlib.suppress(FileNotFoundError):
        report = json.loads((folder / "report.json").read_text())
    report["files"] = dict.fromkeys(PARSERS, 0) | report["files"]
    return report


def _sum(report: dict[str, Any]) -> str:
    files, minutes = sum(report["files"].values()), report["seconds"] / 60
    return f"{files:,} files in {minutes:.0f} minutes, {len(report['found'])} found"


def _write_result(place: Path, report: dict[str, Any]) -> None:
    """The page and the figures of a result."""
    about = {"commit": commit(), "time": now(), "versions": versions(), "hardware": hardware()}
    (place / "result.json").write_text(json.dumps({**about, **report}, indent=1) + "\n")
    lines = [
        "# Damaged bytes in every parser",
        "",
        "`python tests/bad_input/test_fuzz.py`: every parser of files reads damaged ones for a "
        "second in turn, from another seed each time. Each must give a value or one message "
        f"within {LONGEST_READ:g} s of the processor.",
        "",
        f"{len(report['files'])} parsers: {_sum(report)}.",
        "",
        *(f"- {where}: {words}" for where, words in report["found"].items()),
        *([""] if report["found"] else []),
        "| parser | files |",
        "|---|---:|",
        *(f"| {name} | {count:,} |" for name, count in report["files"].items()),
    ]
    (place / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]))
