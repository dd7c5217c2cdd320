"""Processes that are started do not run Python files of the current folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convit_ssl import children
from convit_ssl.children import (
    safe_children,
    safe_code,
    safe_command,
    safe_environment,
    safe_python,
)
from convit_ssl.cli import main
from convit_ssl.compat import environment
from convit_ssl.evaluation.processes import run_in_processes

ROOT = Path(__file__).resolve().parents[2]
MARKED = """
from pathlib import Path
Path({mark!r}).write_text(__file__)
raise ImportError("the wrong one")
"""
SPAWN = """
import contextlib
import importlib.util
import multiprocessing
import sys
from multiprocessing import resource_tracker

# By its path: isolated children may know another installation of the package.
spec = importlib.util.spec_from_file_location("children", {source!r})
children = importlib.util.module_from_spec(spec)
spec.loader.exec_module(children)
children._KNOWN = {known}
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with children.{enter}() or contextlib.nullcontext():
        resource_tracker.ensure_running()
        process = context.Process(target=print, args=("ran",))
        process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has files with the names of libraries; gives what they would write."""
    mark = tmp_path / "mark"
    (tmp_path / "cwd").mkdir()
    for name in ("socket", "signal", "struct", "json", "random", "runpy", "numpy", "inspect"):
        (tmp_path / "cwd" / f"{name}.py").write_text(MARKED.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path / "cwd")
    return mark


def test_the_trap_works(trap: Path) -> None:
    assert subprocess.run([sys.executable, "-c", "import json"], capture_output=True).returncode
    assert trap.exists()


def give(value: int) -> int:
    return value


def test_a_group_of_processes(trap: Path) -> None:
    assert run_in_processes(give, 2, 7) == 7
    assert not trap.exists()
    assert children.SAFE not in os.environ


@pytest.mark.parametrize("enter", ["safe_children", "keep_children_safe"])
@pytest.mark.parametrize("known", [True, False])
def test_spawned_processes(known: bool, enter: str, trap: Path) -> None:
    script = trap.parent / "main.py"
    script.write_text(SPAWN.format(source=children.__file__, known=known, enter=enter))
    given = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=given, capture_output=True, text=True)
    assert done.stdout == "ran\n" and done.returncode == 0, done.stderr
    assert not trap.exists()


@pytest.mark.parametrize("known", [True, False])
def test_a_command_of_a_study(known: bool, trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_KNOWN", known)
    command = safe_command([sys.executable, "-m", "convit_ssl.cli.main", "--version"])
    given = safe_environment({**os.environ, "PYTHONPATH": str(ROOT)})
    if not known:
        given.pop(children.SAFE)
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("convit-ssl "), done.stderr
    assert not trap.exists()


def test_whatever_a_command_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loader workers that are spawned died of a ``types.py`` beside them."""
    monkeypatch.delenv(children.SAFE, raising=False)
    seen: list[str | None] = []
    monkeypatch.setattr(main, "run_to_end", lambda run: seen.append(os.environ.get(children.SAFE)))
    for name in ("own_process", "open_closed_streams"):
        monkeypatch.setattr(main, name, lambda: None)
    main.run_program("results", [])
    os.environ.pop(children.SAFE)  # not by monkeypatch: it would set it again
    assert seen == ["1"]


def test_code_that_is_asked_for_an_answer(trap: Path) -> None:
    """Without PYTHONSAFEPATH, as doctor asks plain Python whether it can import torchvision."""
    code = safe_code("import json; print(json.dumps(1))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
    (trap.parent / "cwd" / "torchvision.py").write_text(MARKED.format(mark=str(trap)))
    environment.why_torchvision_fails()
    assert not trap.exists()


@pytest.mark.parametrize("known", [True, False])
def test_a_task_of_slurm(known: bool, trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_KNOWN", known)
    line = f"{safe_python()} -u -m convit_ssl.cli.main --version"
    given = {**os.environ, "PYTHONPATH": str(ROOT), **({children.SAFE: "1"} if known else {})}
    done = subprocess.run(["sh", "-c", line], env=given, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("convit-ssl "), done.stderr
    assert not trap.exists()


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(children.SAFE, "")
    with safe_children():
        assert os.environ[children.SAFE] == "1"
    assert os.environ[children.SAFE] == ""
