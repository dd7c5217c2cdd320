"""``bench all``: command lines that parse, a limit that holds, logs of what failed."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pytest

from convit_ssl.bench import options
from convit_ssl.bench.everything import ON_CPU, ON_GPU, TIMED_OUT, commands, run_all
from convit_ssl.cli.bench_command import add_arguments
from convit_ssl.cli.main import main


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_command_line_is_accepted(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "_check_device", lambda name: None)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    lines = commands(device, tmp_path)
    assert list(lines) == list(ON_GPU if device == "cuda" else ON_CPU)
    for name, line in lines.items():
        args = parser.parse_args(line[4:])
        options.check_options(args)
        assert args.json == str(tmp_path / f"{name}.json")


def test_a_failure_leaves_its_log(tmp_path: Path) -> None:
    python = [sys.executable, "-c"]
    lines = {
        "wrong": [*python, "raise SystemExit('no such thing')"],
        "right": [*python, "print('figures')"],
    }
    outcomes = run_all(lines, tmp_path / "out", 5)
    assert outcomes["wrong"].startswith("failed with exit code 1, see ")
    assert (tmp_path / "out" / "wrong.log").read_text() == "no such thing\n"
    assert outcomes["right"] == "done"
    assert (tmp_path / "out" / "right.log").read_text() == "figures\n"


def test_the_limit_holds_for_what_a_benchmark_started(tmp_path: Path) -> None:
    start = "import os, subprocess, time; child = subprocess.Popen(['sleep', '600']); "
    write = f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid)); time.sleep(600)"
    lines = {"long": [sys.executable, "-c", start + write], "late": [sys.executable, "-c", ""]}
    outcomes = run_all(lines, tmp_path / "out", 5 / 60)
    assert outcomes == {"long": TIMED_OUT, "late": "not run: the time was up"}
    if (tmp_path / "child").exists():  # unless the machine was too busy to start it
        child = Path(f"/proc/{(tmp_path / 'child').read_text()}")
        deadline = time.monotonic() + 60
        while (child / "cmdline").exists() and (child / "cmdline").read_bytes():  # empty: a zombie
            assert time.monotonic() < deadline, "it still runs"
            time.sleep(0.05)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_a_limit_is_a_number(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "all", f"--minutes={minutes}"]) == 2
    assert "--minutes" in capsys.readouterr().err
