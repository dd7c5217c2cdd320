"""Processes from options and environment; the job that is submitted; where ranks meet."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from convit_ssl.engines.launch.placement import Placement, choose_precision, place, place_of_process
from convit_ssl.engines.launch.rendezvous import (
    listen,
    loopback_interface,
    meeting_host,
    meeting_port,
)
from convit_ssl.engines.launch.signals import RunFailure
from convit_ssl.engines.launch.slurm import parameters, teardown_lines
from convit_ssl.engines.options.plan import Plan
from convit_ssl.errors import UserError
from convit_ssl.schema import RunOptions

VARIABLES = """
SLURM_STEP_ID SLURM_PROCID SLURM_LOCALID SLURM_NTASKS SLURM_NNODES SLURM_STEP_NUM_NODES
SLURM_JOB_ID SLURM_RESTART_COUNT SLURM_JOB_NODELIST SLURM_STEP_NODELIST
MASTER_ADDR MASTER_PORT RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE TORCHELASTIC_RUN_ID
"""


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES.split():
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_one_machine() -> None:
    run = RunOptions(device="cpu", processes=2)
    placement = place(run, workers=0)
    assert (placement.launcher, placement.world_size, placement.workers) == ("local", 2, 0)
    assert placement.backend == "gloo"
    with pytest.raises(UserError, match=r"data\.workers=-1"):
        place(run, workers=-1)


@pytest.mark.parametrize("supported", [True, False])
def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: supported)
    for device in ("cpu", "cuda"):
        assert choose_precision("auto", device) == ("bf16" if supported else "fp32")
        assert choose_precision("bf16", device) == "bf16"
    with pytest.raises(UserError, match=r"run\.precision='fp64': use auto, fp32, bf16, fp16"):
        choose_precision("fp64", "cpu")


def test_torchrun_gives_processes_and_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="torchrun --nproc-per-node"):
        place(RunOptions(launcher="torchrun", device="cpu"))
    set_all(monkeypatch, TORCHELASTIC_RUN_ID="x", WORLD_SIZE="6", LOCAL_WORLD_SIZE="3", RANK="4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    placement = place(RunOptions(launcher="torchrun", device="cpu"))
    assert (placement.nodes, placement.processes) == (2, 3)
    assert place_of_process("torchrun") == (4, 1)


def test_a_slurm_step_is_a_process_and_a_batch_script_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = RunOptions(launcher="slurm", device="cpu", nodes=2, processes=2)
    set_all(monkeypatch, SLURM_JOB_ID="7", SLURM_PROCID="0", SLURM_NTASKS="4", SLURM_NNODES="2")
    assert place(run).launcher == "slurm"
    set_all(monkeypatch, SLURM_STEP_ID="0", SLURM_PROCID="3", SLURM_LOCALID="1")
    placement = place(run)
    assert (placement.launcher, placement.nodes, placement.processes) == ("srun", 2, 2)
    assert place_of_process("srun") == (3, 1)
    monkeypatch.setenv("SLURM_NTASKS", "3")
    with pytest.raises(UserError, match="--ntasks-per-node"):
        place(run)


def test_the_port_listens_on_the_given_address_only(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, MASTER_ADDR="127.0.0.1", SLURM_JOB_ID="5")
    assert meeting_host() == ("127.0.0.1", "127.0.0.1")
    first = meeting_port()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert meeting_port() != first  # the old port may still be closing
    monkeypatch.setenv("MASTER_PORT", "0")
    assert meeting_port() == 0
    listener = listen("127.0.0.1", 0)
    try:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(RunFailure, match="cannot listen"):
            listen("127.0.0.1", port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
    finally:
        listener.close()
    with pytest.raises(RunFailure, match="MASTER_ADDR"):
        listen("192.0.2.1", 0)  # a documentation address, nobody's
    assert loopback_interface() in [name for _, name in socket.if_nameindex()]


def test_a_node_without_an_address_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "no-such-node.invalid")
    with pytest.raises(UserError, match="set MASTER_ADDR"):
        meeting_host()


def plan(**run: Any) -> Any:
    options = {
        "partition": "low", "account": None, "constraint": None, "cpus_per_task": None,
        "hours": 2.0, "requeue": 3, "grace_seconds": 60.0, "gpus_per_node": None,
        "dir": "runs/x", **run,
    }  # fmt: skip
    placement = Placement("slurm", "cuda", 4, 8, 1, 4)
    none: Any = None
    return Plan({}, {"run": options}, placement, none, {}, {})


def test_what_slurm_is_asked_for() -> None:
    given = parameters(plan(account="lab"), Path("/runs/x/slurm"))
    assert (given["nodes"], given["ntasks_per_node"], given["gpus_per_node"]) == (4, 8, 8)
    assert (given["time"], given["partition"], given["account"]) == (120, "low", "lab")
    assert given["signal_delay_s"] > 60
    assert "constraint" not in given
    assert given["srun_args"] == ["--kill-on-bad-exit=1"]


def run_teardown(tmp_path: Path, code: int, requeue: int = 2) -> tuple[int, bool]:
    """Exit code, and whether the job was put back, by a batch script whose srun gave `code`."""
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >> "$LOG"\nexit 1\n')
    (tmp_path / "scontrol").chmod(0o755)
    log = tmp_path / "log"
    log.unlink(missing_ok=True)
    script = "\n".join([f"(exit {code})", *teardown_lines(tmp_path, requeue)])
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log), "SLURM_JOB_ID": "5"},
        capture_output=True,
        text=True,
    )
    return done.returncode, log.exists()


@pytest.mark.parametrize(
    ("codes", "requeued"),
    [
        ([0], [False]),
        ([2], [False]),  # a mistake in the command stays one
        ([143], [False]),  # scancel
        ([138, 140, 138], [True, True, True]),  # time-outs cost nothing
        ([1, 137, 9, 75], [True, True, False, False]),
    ],
)
def test_the_batch_script_passes_codes_on_and_requeues(
    codes: list[int], requeued: list[bool], tmp_path: Path
) -> None:
    for code, again in zip(codes, requeued, strict=True):
        assert run_teardown(tmp_path, code) == (code, again)


def test_tasks_that_srun_ended_do_not_hide_an_announced_stop(tmp_path: Path) -> None:
    (tmp_path / "again_5").touch()
    assert run_teardown(tmp_path, 143) == (143, True)
    assert run_teardown(tmp_path, 143) == (143, False)  # it counts once
