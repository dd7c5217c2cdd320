"""A SLURM of three nodes on this machine: real daemons, their files in one folder.

Works as root on Debian with slurmctld, slurmd, slurm-client and munge; installs them with apt
where they are missing. The nodes differ by name and port only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
NODES, CPUS, PORT = 3, 4, 16810
PATIENCE = 600.0  # seconds, on a machine that does much else
# What submitit asks sacct for, without the accounting daemon that sacct would ask.
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
"""
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.sock
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool.%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000
SlurmdParameters=config_overrides
ReturnToService=1
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=5
OverTimeLimit=0
SlurmdTimeout=20
MessageTimeout=20
MinJobAge=600
{nodes}
PartitionName=low Nodes=n[1-{count}] Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=n[1-{count}] PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Why there can be no SLURM here; empty where there can."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    if all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "munged")):
        return ""
    if shutil.which("apt-get") is None:
        return "SLURM is not installed and there is no apt-get"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], capture_output=True, text=True, env=environment
        )
    return (
        "" if shutil.which("slurmctld") else f"apt-get cannot install SLURM: {done.stderr[-200:]}"
    )


class Slurm:
    """The daemons and what is asked of them.

    Args:
        base: folder of everything they write.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        for name in (
            "etc",
            "run",
            "log",
            "state",
            "bin",
            *(f"spool.n{i + 1}" for i in range(NODES)),
        ):
            (base / name).mkdir(parents=True)
        base.chmod(0o755)
        nodes = "\n".join(
            f"NodeName=n{i} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 "
            f"Port={PORT + i} CPUs={CPUS} RealMemory=2000 State=UNKNOWN"
            for i in range(1, NODES + 1)
        )
        (base / "etc" / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=socket.gethostname(), port=PORT, base=base, nodes=nodes, count=NODES
            )
        )
        (base / "etc" / "cgroup.conf").touch()
        (base / "bin" / "sacct").write_text(SACCT)
        (base / "bin" / "sacct").chmod(0o755)
        key = base / "etc" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
            "SLURM_CONF": str(base / "etc" / "slurm.conf"),
            "PATH": f"{base / 'bin'}:{os.environ['PATH']}",
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
        }

    def start(self) -> None:
        run, log = self.base / "run", self.base / "log"
        self.ask(
            "munged", f"--key-file={self.base / 'etc' / 'munge.key'}", "--force",
            f"--socket={run / 'munge.sock'}", f"--pid-file={run / 'munged.pid'}",
            f"--log-file={log / 'munged.log'}", f"--seed-file={run / 'munged.seed'}",
        )  # fmt: skip
        self.ask("slurmctld", "-c")
        for number in range(1, NODES + 1):
            self.start_node(f"n{number}")
        self.until(lambda: self.ask("sinfo", "-hN", "-plow", "-tidle", "-o%N").count("n") == NODES)

    def start_node(self, node: str) -> None:
        self.ask("slurmd", "-N", node)

    def stop(self) -> None:
        """Empty the queue first: a step's daemon outlives its controller."""
        self.ask("scancel", "--user=root", check=False)
        deadline = time.monotonic() + 30
        while self.ask("squeue", "-h", check=False).strip() and time.monotonic() < deadline:
            time.sleep(0.5)
        files = sorted((self.base / "run").glob("*.pid"), reverse=True)
        ended = [process for file in files if (process := self._kill(file, signal.SIGTERM))]
        deadline = time.monotonic() + 60
        while ended and time.monotonic() < deadline:  # they write their state until the end
            ended = [process for process in ended if Path(f"/proc/{process}").exists()]
            time.sleep(0.1)
        for process in ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def kill_node(self, node: str, tasks: list[int]) -> None:
        """As a power cut: its daemon, the daemons of its steps, and its tasks."""
        self._kill(self.base / "run" / f"slurmd.{node}.pid", signal.SIGKILL)
        parents = {_parent(task) for task in tasks}
        for number in [*tasks, *parents]:
            if number > 1:
                os.kill(number, signal.SIGKILL)

    def ask(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What scontrol says of a job."""
        text = self.ask("scontrol", "-o", "show", "job", number)
        return dict(re.findall(r"(\w+)=(\S+)", text))

    def until_restarted(self, number: str, restarts: int, timeout: float = PATIENCE) -> None:
        """Wait until the job was requeued so often, without the two minutes that SLURM waits.

        Some seconds it must wait: a node takes a job that begins in the very second in which it
        was requeued for the one that was revoked, and refuses it.
        """
        asked = float("-inf")

        def restarted() -> bool:
            nonlocal asked
            job = self.job(number)
            assert job["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), (
                f"{job['JobState']} in place of a restart:\n{self.log()}"
            )
            if int(job["Restarts"]) >= restarts and job["JobState"] == "RUNNING":
                return True
            if job["JobState"] == "PENDING" and time.monotonic() - asked > 20:
                asked = time.monotonic()
                self.ask("scontrol", "update", f"JobId={number}", "StartTime=now+4", check=False)
            return False

        self.until(restarted, timeout)

    def until(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def log(self) -> str:
        return (self.base / "log" / "slurmctld.log").read_text()

    def _kill(self, file: Path, number: int) -> int:
        """Send a signal to the daemon of a pid file; returns its number, 0 where there is none."""
        try:
            process = int(file.read_text())
            os.kill(process, number)
        except (OSError, ValueError):
            return 0
        return process


def _parent(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return int(re.findall(r"PPid:\s+(\d+)", status)[0])
