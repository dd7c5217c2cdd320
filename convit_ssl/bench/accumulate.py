"""``bench accumulate``: a training step of the whole batch against the same batch in parts."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from convit_ssl.bench import measure
from convit_ssl.bench.report import TableOf
from convit_ssl.machine import keep_freed_memory, peak_resident_mib
from convit_ssl.methods import get_method

STEPS = 6  # that a peak is taken over
COLUMNS = (
    "step", "ms / image", "time / whole batch", "tensors, peak MiB", "tensors / whole batch",
    "resident, peak MiB", "resident / whole batch",
)  # fmt: skip
NOTES = [
    "Each step is the real training step, with published head sizes, on images in memory. "
    "Time: the whole batch and its parts alternate in one process; the ratio is the median "
    "over rounds. Peak memory is measured in separate processes and excludes weights, "
    'gradients and optimiser state. "Tensors" is the exact number of bytes of all tensors '
    f'alive at once during one step. "Resident" (CPU only) is the peak over {STEPS} steps; it '
    "includes memory that the C library keeps for reuse, and varies by a few per cent between "
    "runs.",
    "The last line is a lower bound for accumulation: a batch as small as one part, which "
    "gives other gradients and needs no images, features or head outputs of the other parts.",
]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is held equal."""

    method: str
    size: str
    batch: int
    parts: int
    global_side: int
    local_side: int
    local_crops: int
    out_dim: int
    dtype: str
    device: str
    clock: str
    threads: int

    def step(self, parts: int) -> Callable[[int], None]:
        """A training step of a run that is set up for it, on a number of images."""
        from convit_ssl.adapters.train_step import train_step

        task = _build_task(self, parts)

        def run(batch: int) -> None:
            views = [
                torch.randint(256, (batch, 3, side, side), dtype=torch.uint8) for side in self.sides
            ]
            target = torch.zeros(batch, dtype=torch.int64)
            task.data_iterator = iter([(views, target, torch.arange(batch))])
            train_step(task)

        return run

    @property
    def sides(self) -> list[int]:
        """Of each view, in pixels."""
        local = self.local_crops if get_method(self.method).local_crops else 0
        return [self.global_side] * 2 + [self.local_side] * local


def _build_task(plan: Plan, parts: int) -> Any:
    """VISSL's task of the method's experiment, as a run has it before its first step."""
    from convit_ssl import adapters
    from convit_ssl.engines.options.compose import compose_experiment
    from convit_ssl.engines.options.plan import make_plan

    adapters.register()
    from vissl.config import AttrDict
    from vissl.trainer.trainer_main import build_task
    from vissl.utils.hydra_config import infer_and_assert_hydra_config

    words = [
        f"config=convit_{plan.method}", "data=digits", f"trunk=convit_{plan.size}",
        f"run={'cpu' if plan.device == 'cpu' else 'gpu1'}", f"run.threads={plan.threads}",
        f"run.precision={plan.dtype}", "data.workers=0", "scale_to_data=false",
        f"crops.global_size={plan.global_side}", f"optim.accumulate={parts}",
        f"optim.batch_size={parts}",  # batches are our own; the digits are not read
    ]  # fmt: skip
    if get_method(plan.method).local_crops:
        words += [f"crops.local_count={plan.local_crops}", f"crops.local_size={plan.local_side}"]
    if plan.method == "dino":
        words.append(f"method.out_dim={plan.out_dim}")
    with tempfile.TemporaryDirectory(prefix="convit_ssl-accumulate-") as folder:
        words.append(f"run.dir={folder}")
        config = AttrDict(make_plan(compose_experiment(words)).config)
        infer_and_assert_hydra_config(config)
        task = build_task(config)
        task.set_checkpoint_path(None)
        task.set_checkpoint_folder(folder)
        task.set_hooks([])
        task.prepare(pin_memory=False)
    task.iteration, task.train = 0, True
    task.max_iteration = task.num_train_phases * task.steps_per_epoch
    task.base_model.train()
    return task


def compare(plan: Plan, repeats: int) -> dict[str, Any]:
    """Time and peak memory of the whole batch, of it in parts, and of a part as a batch."""
    device = torch.device(plan.device)
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    whole, parts = f"batch of {plan.batch}", f"in {plan.parts} parts"
    part = f"batch of {plan.batch // plan.parts}"
    steps = {whole: plan.step(1), parts: plan.step(plan.parts)}
    runs = {name: functools.partial(step, plan.batch) for name, step in steps.items()}
    times = measure.alternate(runs, repeats, device, plan.clock, warmup=1)
    del runs, steps
    sizes = {
        whole: (plan.batch, 1),
        parts: (plan.batch, plan.parts),
        part: (plan.batch // plan.parts, 1),
    }
    tensors = {name: _in_a_process(peak_of_tensors, plan, *sizes[name]) for name in sizes}
    resident = {}
    if device.type == "cpu":
        resident = {name: _in_a_process(peak_resident, plan, *sizes[name]) for name in sizes}
    rows = [
        {
            "name": name,
            "milliseconds": 1e3 * times[name].median / plan.batch if name in times else None,
            "times": 1 / measure.ratio(times[name], times[whole]) if name in times else None,
            "peak_mib": tensors[name],
            "of_memory": tensors[name] / tensors[whole],
            "resident_mib": resident.get(name),
            "of_resident": resident[name] / resident[whole] if resident else None,
        }
        for name in sizes
    ]
    return {"setting": dataclasses.asdict(plan), "rows": rows}


def _in_a_process(measured: Callable[[Plan, int, int], float], *asked: Any) -> float:
    """A peak where nothing was allocated before."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(measured, *asked).result()


def peak_of_tensors(plan: Plan, batch: int, parts: int) -> float:
    """The bytes of all tensors that a step holds at once, beyond what stays between steps, MiB."""
    torch.set_num_threads(plan.threads)
    step = plan.step(parts)
    return measure.peak_memory(lambda: step(batch), torch.device(plan.device))


def peak_resident(plan: Plan, batch: int, parts: int) -> float:
    """Resident memory of a CPU's steps beyond what stays between them, in MiB."""
    torch.set_num_threads(plan.threads)
    step = plan.step(parts)
    keep_freed_memory()
    step(2)  # gradients, the optimiser's state and buffers of the libraries are there from now on
    before = _resident("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(STEPS):
        step(batch)
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    """Resident memory of this process in MiB, now (VmRSS) or at its peak (VmHWM)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return float(line.split()[1]) / 1024
    return peak_resident_mib()


def title(comparison: dict[str, Any]) -> str:
    """What was compared."""
    s = comparison["setting"]
    crops = f"2 x {s['global_side']}"
    if get_method(s["method"]).local_crops and s["local_crops"]:
        crops += f" + {s['local_crops']} x {s['local_side']}"
    return f"{s['method']}, {s['size']}, {crops}, batch {s['batch']}, {s['dtype']}"


def table(comparison: dict[str, Any]) -> TableOf:
    """A line for each way to take a step."""
    lines = []
    for row in comparison["rows"]:
        spent = "" if row["milliseconds"] is None else f"{row['milliseconds']:.1f}"
        times = "" if row["times"] is None else f"{row['times']:.2f} x"
        tensors = [f"{row['peak_mib']:.0f}", f"{row['of_memory']:.2f} x"]
        resident = ["", ""]
        if row["resident_mib"] is not None:
            resident = [f"{row['resident_mib']:.0f}", f"{row['of_resident']:.2f} x"]
        lines.append([row["name"], spent, times, *tensors, *resident])
    return title(comparison), COLUMNS, lines
