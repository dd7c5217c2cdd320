"""What a run shows to others: its files, the environment, its ports."""

from __future__ import annotations

import os
import signal
import socket
import struct
from pathlib import Path

import pytest

from tests.quick_run import Run

UMASK = 0o027
SECRET = "a-token-that-nobody-else-may-read"
LISTENING = "0A"  # state in /proc/net/tcp


def addresses(group: int) -> set[str]:
    """Where the processes of a group listen."""
    inodes = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == group:
                inodes |= {os.readlink(file) for file in (process / "fd").iterdir()}
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in inodes:
                found.add(readable(fields[1].partition(":")[0]))
    return found


def readable(address: str) -> str:
    """An address of /proc/net/tcp: 32-bit words in the machine's order."""
    words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_files_environment_and_ports_of_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path, "optim.epochs=400", "run.processes=2", "run.tensorboard=true")
    before = os.umask(UMASK)
    try:
        run.start(AWS_SECRET_ACCESS_KEY=SECRET, WANDB_API_KEY=SECRET)
    finally:
        os.umask(before)
    run.until(lambda: run.steps() >= 5 and run.alive(1))
    listening = addresses(run.process.pid)
    run.signal(signal.SIGTERM)
    assert run.wait(400) == 128 + signal.SIGTERM, run.text()

    assert listening  # for each other
    assert all(address in ("127.0.0.1", "::1") for address in listening), listening
    for path in [run.folder, *run.folder.rglob("*")]:
        if path.is_symlink():
            continue
        expected = (0o777 if path.is_dir() else 0o666) & ~UMASK
        assert path.stat().st_mode & 0o777 == expected, path
    for path in [run.output, *(path for path in run.folder.rglob("*") if path.is_file())]:
        assert SECRET.encode() not in path.read_bytes(), path
