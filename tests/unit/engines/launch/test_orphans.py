"""A process that waits for others leaves with its launcher."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

PROGRAM = """
import os, signal, sys, time
from convit_ssl.engines.launch.orphans import leave_with
from convit_ssl.engines.launch.rendezvous import join
from convit_ssl.engines.launch.placement import Placement
folder = sys.argv[1]
launcher = os.fork()
if not launcher:
    own = os.getpid()
    if not os.fork():
        with open(f"{folder}/rank", "w") as file:
            file.write(str(os.getpid()))
        leave_with(own)
        join(Placement("local", "cpu", 1, 2, 1, 0), 0, f"{folder}/meeting", 5.0)
        os._exit(3)
    time.sleep(600)
while not os.path.exists(f"{folder}/meeting"):
    time.sleep(0.02)
time.sleep(0.3)
os.kill(launcher, signal.SIGKILL)
os.waitpid(launcher, 0)
rank = int(open(f"{folder}/rank").read())
began = time.monotonic()
while os.path.exists(f"/proc/{rank}") and time.monotonic() - began < 60:
    state = open(f"/proc/{rank}/stat").read().rpartition(")")[2].split()[0]
    if state == "Z":
        break
    time.sleep(0.05)
else:
    if os.path.exists(f"/proc/{rank}"):
        os.kill(rank, signal.SIGKILL)
        sys.exit("it stayed")
"""


def test_it_leaves_where_it_waits_for_processes_that_never_come(tmp_path: Path) -> None:
    words = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
