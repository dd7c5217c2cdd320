"""Two hosts on this machine: network namespaces with one cable between them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.quick_run import TOOL, Run

HOSTS = {"hostA": ("vethA", "10.99.0.1"), "hostB": ("vethB", "10.99.0.2")}


def missing() -> str:
    """Why there can be no such hosts here; empty where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    tried = subprocess.run(["ip", "netns", "add", "probe"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", "probe"], capture_output=True)
    return "" if tried.returncode == 0 else f"no network namespaces: {tried.stderr.strip()}"


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


def up() -> None:
    down()
    for host in HOSTS:
        _ip("netns", "add", host)
        _ip("-n", host, "link", "set", "lo", "up")
    _ip("link", "add", "vethA", "netns", "hostA", "type", "veth", "peer", "name", "vethB",
        "netns", "hostB")  # fmt: skip
    for host, (interface, address) in HOSTS.items():
        _ip("-n", host, "addr", "add", f"{address}/24", "dev", interface)
        _ip("-n", host, "link", "set", interface, "up")


def down() -> None:
    for host in HOSTS:
        _ip("netns", "del", host, check=False)


def cable(plugged: bool) -> None:
    """Pull the cable out, or put it back."""
    _ip("-n", "hostB", "link", "set", "vethB", "up" if plugged else "down")


class TwoHosts:
    """The same run, started by torchrun on each host.

    Args:
        run: its options and folder.
        nnodes: hosts, as torchrun takes them.
    """

    def __init__(self, run: Run, nnodes: str) -> None:
        self.run = run
        self.nnodes = nnodes
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, host: str) -> None:
        interface, address = HOSTS[host]
        first = host == "hostA"
        environment = {
            **os.environ,
            "GLOO_SOCKET_IFNAME": interface,
            "OMP_NUM_THREADS": "1",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        self.run.root.mkdir(parents=True, exist_ok=True)
        with open(self.run.root / f"{host}.txt", "ab") as file:
            self.agents[host] = subprocess.Popen(
                [
                    "ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run",
                    f"--nnodes={self.nnodes}", "--nproc-per-node=1", "--max-restarts=20",
                    "--rdzv-backend=c10d", "--rdzv-endpoint=10.99.0.1:29500", "--rdzv-id=x",
                    f"--rdzv-conf=is_host={int(first)},timeout=300,last_call_timeout=5",
                    f"--local-addr={address}", str(TOOL), *self.run.arguments,
                ],
                stdout=file, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True, cwd=self.run.root,
            )  # fmt: skip

    def kill(self, host: str) -> None:
        """As a power cut: the agent and its workers at once."""
        os.killpg(self.agents[host].pid, signal.SIGKILL)
        self.agents.pop(host).wait()
        self._kill_rest(host)

    def _kill_rest(self, host: str) -> None:
        listed = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True)
        for number in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)

    def wait(self, timeout: float = 900.0) -> list[int]:
        return [agent.wait(timeout) for agent in self.agents.values()]

    def end(self) -> None:
        for host, agent in self.agents.items():
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
            self._kill_rest(host)
        self.agents.clear()

    def text(self) -> str:
        files = sorted(self.run.root.glob("host*.txt"))
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in files)


def run_on_hosts(root: Path, *overrides: str) -> Run:
    """A run for torchrun, its folder on the disk that both hosts share."""
    run = Run(root, "run=torchrun", "run.device=cpu", "run.precision=fp32", *overrides)
    run.arguments.remove("run=cpu")
    return run
