"""How a process ends that is ours: without taking the interpreter down.

A gloo group has threads of its own. `torch.distributed.destroy_process_group` ends them only when
nothing refers to the group any more, and FSDP's caches refer to it until the very end. One that
lets go of a tensor while the interpreter is being taken down aborts the process ("terminate called
without an active exception"): a run that finished would be reported as failed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


def leave_group() -> None:
    """Destroy this process's group. The process has to end by `end_process`."""
    import torch.distributed

    torch.distributed.destroy_process_group()


def run_to_end(run: Callable[[], int]) -> NoReturn:
    """Call what this process is for, and end the process with the exit code that it gives.

    The interpreter is not taken down: that takes two seconds where thousands of modules were
    imported, and a stop signal may have come in the middle of an import.
    """
    try:
        code = run()
    except SystemExit as stop:
        if not isinstance(stop.code, int):
            raise
        code = stop.code
    end_process(code)


def end_process(code: int) -> NoReturn:
    """End this process with an exit code, without taking the interpreter down.

    What a program may count on still happens, in the usual order: threads are waited for, exit
    handlers run (temporary folders are removed, logs closed), and output is flushed. Ctrl-C ends
    that early, with the same code.

    Args:
        code: the exit code.
    """
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda *_: os._exit(code))
        threading._shutdown()  # type: ignore[attr-defined]  # ends executors' threads too
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)
