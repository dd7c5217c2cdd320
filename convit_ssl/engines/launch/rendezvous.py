"""How the processes of a run find each other, on an address that was chosen and no other."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import socket
import subprocess

import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore

from convit_ssl.engines.launch.placement import Placement
from convit_ssl.engines.launch.signals import RunFailure
from convit_ssl.errors import UserError

FIRST_PORT, PORTS = 20000, 20000
SLURM_PAUSE = 5.0  # seconds that scontrol may take


def join(placement: Placement, rank: int, meeting: str, minutes: float) -> None:
    """Form the process group.

    Args:
        placement: the processes of the run.
        rank: this one.
        meeting: a file for the processes of one machine; ``env://`` under torchrun; ``slurm``.
        minutes: a collective that takes longer fails.

    Raises:
        RunFailure: processes that did not come.
        UserError: an address that cannot be used.
    """
    timeout = datetime.timedelta(minutes=minutes)
    world = placement.world_size
    if world == 1:
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        return
    try:
        if meeting == "slurm":
            store = _slurm_store(rank, world, timeout)
            dist.init_process_group(
                placement.backend, store=store, rank=rank, world_size=world, timeout=timeout
            )
            return
        if meeting != "env://":
            # All of them are on this machine: nothing has to listen outside it.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback_interface())
            meeting = f"file://{meeting}"
        dist.init_process_group(
            placement.backend, init_method=meeting, rank=rank, world_size=world, timeout=timeout
        )
    except RuntimeError as error:  # dist.DistError is one
        raise RunFailure(
            f"rank {rank} on {socket.gethostname()} could not join the {world} processes of the "
            f"run: {str(error).splitlines()[0][:300]}"
        ) from None


def loopback_interface() -> str:
    """Name of the interface that no other machine reaches."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), names[0])


def _slurm_store(rank: int, world: int, timeout: datetime.timedelta) -> Store:
    host, address = meeting_host()
    port = meeting_port()
    listener: socket.socket | None = None
    if rank == 0:
        listener = listen(address, port)
    store = TCPStore(
        address,
        port,
        world,
        is_master=rank == 0,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach() if listener is not None else None,
    )
    store.set(f"here/{rank}", socket.gethostname())
    names = [f"here/{other}" for other in range(world)]
    try:
        store.wait(names, timeout)
    except RuntimeError:
        missing = [other for other in range(world) if not store.check([names[other]])]
        raise RunFailure(
            f"{len(missing)} of {world} processes did not connect to {host}:{port} within "
            f"{timeout.total_seconds():.0f} s: rank {', '.join(map(str, missing[:8]))}. If the "
            f"nodes have several networks, set MASTER_ADDR to the first node's address in the "
            f"shared one"
        ) from None
    return PrefixStore("group", store)


def meeting_host() -> tuple[str, str]:
    """Name and address of the job's first node; ``MASTER_ADDR`` where it is set."""
    given = os.environ.get("MASTER_ADDR")
    first = given or _first_node()
    found = []
    for name in (first, None if given else _node_address(first)):
        with contextlib.suppress(OSError):
            if name:
                found.append(socket.gethostbyname(name))
    # Debian's /etc/hosts gives a machine's own name a loopback address.
    outside = [address for address in found if not address.startswith("127.")]
    if found:
        return first, (outside or found)[0]
    raise UserError(
        f"the first node, {first}, cannot be resolved here; set MASTER_ADDR to the address of its "
        f"network interface"
    )


def meeting_port() -> int:
    """``MASTER_PORT``, or one from the job's number and how often it was restarted."""
    given = os.environ.get("MASTER_PORT")
    if given:
        return int(given)
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    again = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    step = int(os.environ.get("SLURM_STEP_ID", "0"))
    return FIRST_PORT + (7 * job + 3 * again + step) % PORTS


def listen(address: str, port: int) -> socket.socket:
    """A listening socket on one address; PyTorch alone would listen on all of them.

    Raises:
        RunFailure: the port is in use or the address is not this machine's.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(4096)
    except OSError as error:
        listener.close()
        raise RunFailure(
            f"{socket.gethostname()} cannot listen on {address}:{port} ({error.strerror}); set "
            "MASTER_ADDR to an address of the first node and MASTER_PORT to a free port"
        ) from None
    return listener


def _first_node() -> str:
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    if re.fullmatch(r"[\w.-]+", nodes):
        return nodes
    names = _scontrol("show", "hostnames", nodes).split()
    return names[0] if names else socket.gethostname()


def _node_address(node: str) -> str | None:
    found = re.search(r"NodeAddr=(\S+)", _scontrol("show", "node", node))
    return found[1] if found else None


def _scontrol(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["scontrol", *arguments], capture_output=True, text=True, timeout=SLURM_PAUSE
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
