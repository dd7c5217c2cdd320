"""A process that was in a group ends by itself, with everything done but the interpreter's end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A thread of the executor ends late, as does what an exit handler writes; `Last` would be let go
# of while the interpreter is taken down, as the tensors of a group's threads are.
PROGRAM = """
import atexit, sys, time
from concurrent.futures import ThreadPoolExecutor
from convit_ssl.process_end import end_process

class Last:
    def __del__(self):
        sys.__stdout__.write("taken down\\n")

last = Last()
atexit.register(lambda: print("exit handler"))
ThreadPoolExecutor(1).submit(lambda: (time.sleep(0.2), print("thread")))
sys.stderr.write("words")
end_process({code})
"""


@pytest.mark.parametrize("code", [0, 74])
def test_everything_but_the_interpreters_end(code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(code=code)], capture_output=True, text=True
    )
    assert ended.returncode == code
    assert ended.stdout == "thread\nexit handler\n"
    assert ended.stderr == "words"


COMMAND = """
import sys
from convit_ssl.process_end import run_to_end

class Last:
    def __del__(self):
        sys.__stdout__.write("taken down\\n")

last = Last()

def run():
    print("words")
    {end}

run_to_end(run)
"""


@pytest.mark.parametrize("end", ["return 2", "raise SystemExit(2)"])
def test_a_command_ends_without_taking_its_modules_down(end: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND.format(end=end)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "words\n", "")


@pytest.mark.parametrize("name", ["engines/launch/start", "evaluation/processes", "bench/scaling"])
def test_processes_that_are_started_end_so(name: str) -> None:
    source = (Path(__file__).parents[2] / "convit_ssl" / f"{name}.py").read_text()
    assert "end_process(0)" in source


def test_no_group_is_left_otherwise() -> None:
    package = Path(__file__).parents[2] / "convit_ssl"
    found = {
        path.name for path in package.rglob("*.py") if "destroy_process_group()" in path.read_text()
    }
    assert found == {"process_end.py"}
