"""A batch in parts is the same batch in two processes too, with whole copies and with shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from convit_ssl.process_end import end_process, leave_group
from tests.golden.tiny import TINY, tiny_task
from tests.unit.adapters.test_accumulation import METHODS, assert_same, two_steps

# Those without a run of their own in `test_fsdp`.
SHARED = ("convit_diet", "convit_distill", "convit_ibot", "convit_lejepa", "convit_vicreg")
COMMON = ("optim=sgd", "run.processes=2")


def compare(rank: int, meeting: str, fsdp: bool) -> None:
    """One of two processes: each method in one part and in two, as copies and in shares."""
    torch.set_num_threads(1)
    from classy_vision.generic.distributed_util import set_cpu_device

    set_cpu_device()
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for experiment in ("convit_dino", "convit_simclr") if fsdp else TINY:
        more = (*COMMON, *METHODS[experiment], f"run.fsdp={str(fsdp).lower()}")
        whole = two_steps(tiny_task(experiment, *more), 100 * rank)
        parts = two_steps(tiny_task(experiment, *more, "optim.accumulate=2"), 100 * rank)
        assert_same(parts, whole)
        # Gradients are averaged: alike in both.
        name = next(name for name in parts if name.startswith("gradient"))
        both = [torch.empty_like(parts[name]) for _ in range(2)]
        dist.all_gather(both, parts[name])
        torch.testing.assert_close(both[0], both[1])
    for experiment in SHARED if fsdp else ():
        more = (*COMMON, *METHODS[experiment])
        copies = two_steps(tiny_task(experiment, *more), 100 * rank)
        shares = two_steps(tiny_task(experiment, *more, "run.fsdp=true"), 100 * rank)
        assert_same(shares, copies)
    leave_group()
    end_process(0)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_parts_make_the_same_step(tmp_path: Path, fsdp: bool) -> None:
    torch.multiprocessing.spawn(compare, (str(tmp_path / "meeting"), fsdp), nprocs=2)
