"""One run at a time in a run folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from convit_ssl.errors import UserError
from convit_ssl.runs import RunFolder

# A process that was told to stop may still be writing its last checkpoint.
PATIENCE = 30.0  # seconds
SILENCE = 1.0  # seconds


@contextlib.contextmanager
def lock_run(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a run folder. The lock goes with the process, however that ends.

    It also goes when the process closes any other descriptor of the file, so nothing but this
    opens it.

    Raises:
        UserError: another process holds it for longer than `patience` seconds.
    """
    with open(RunFolder(folder).lock, "a+", encoding="utf-8") as file:
        began = time.monotonic()
        told = False
        while not _taken(file.fileno()):
            waited = time.monotonic() - began
            file.seek(0)
            holder = f"another process is training in {folder} ({file.read().strip() or 'unknown'})"
            if waited > patience:
                raise UserError(
                    f"{holder}; wait for it, stop it, or give this run its own folder with "
                    f"run.name=..."
                )
            if waited > SILENCE and not told:
                told = True
                print(f"{holder}; waiting up to {patience:.0f} s for it to leave", flush=True)
            time.sleep(0.2)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield  # the file stays: deleting it would let two others lock two files of one name


def _taken(descriptor: int) -> bool:
    try:
        # Unlike flock's, this lock is not inherited by loader workers, and works over NFS.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        logging.warning("cannot lock the run folder: %s", error)  # not every system can
    return True
