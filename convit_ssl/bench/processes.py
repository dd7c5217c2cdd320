"""Processes that are measured as a whole."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_timed(
    line: Sequence[str], environment: Mapping[str, str], log: Path
) -> tuple[int, float, float]:
    """Run a command; its exit code, processor time and seconds.

    The processor time is that of the process and of all its children that it waited for.
    """
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            line, env=dict(environment), stdout=file, stderr=subprocess.STDOUT, cwd=log.parent
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    spent = usage.ru_utime + usage.ru_stime
    return process.returncode, spent, time.perf_counter() - began
