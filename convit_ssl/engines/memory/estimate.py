"""How much memory a run will take, before its first step, and whether the machine has it.

Activations are counted exactly: autograd is asked what it keeps of two and of three images. Small
networks run for that, larger ones are only traced. The rest is sizes of tensors: weights,
gradients, moments, a teacher, the copy that a checkpoint is written from, batches of the loader.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from convit_ssl.adapters.inputs import features_batch, reads_with_workers, testing_batch
from convit_ssl.adapters.side_by_side import MOST_MIB, extra_mib
from convit_ssl.engines.launch.thread_trials import left_to_run
from convit_ssl.engines.memory.heads import head_of
from convit_ssl.engines.memory.images import decoded_mib, teacher_mib
from convit_ssl.engines.memory.room import Room, find_room
from convit_ssl.engines.memory.size import BASE_MIB, COMPILER_MIB, Memory, gib
from convit_ssl.engines.options.plan import Plan
from convit_ssl.errors import UserError
from convit_ssl.methods import get_method
from convit_ssl.models import ConViTConfig
from convit_ssl.models.trunks import AnyConfig, Network, TrunkConfig, count_parameters, sketch

MIB = 2.0**20
FLOAT = 4  # bytes
WORKER_MIB = 60.0  # of a loader worker's own, beside what it shares
LAUNCHER_MIB = 300.0  # of the process that starts several, and waits
# Copies of the (rows, out_dim) logits that a loss holds at its peak, with their gradients.
LOSS_COPIES = 4
# What the allocator holds of activations beyond what is in use. Rounded and exact tensors lie
# beside each other, and in a heap that keeps what is freed, none fits into what the other left.
SLACK, SLACK_ROUNDED = 1.1, 1.5
PREFETCHED = 2
# Of what training keeps of an image, so much is alive at once in a pass without gradients: about a
# layer's. With labels such passes follow every epoch, with more images at a time than a step has.
ALIVE = 0.1
# Of an estimate, so much is certain; a run that may fit is not refused.
SURE = 0.8
GROWING = ("activations", "loss", "images")  # with the batch
IGNORE = "CONVIT_SSL_IGNORE_MEMORY"  # set, nothing is refused
# Parameters times patches. Up to this size, running the network to count its activations takes
# under half a second; larger networks are traced, and starting the tracer alone takes two.
SMALL = 1.2e9


def estimate(plan: Plan) -> Memory | None:
    """The memory of one process; None where a trunk is frozen, or its passes cannot be traced."""
    if get_method(plan.settings.method.name).frozen_trunk:
        return None
    options, device = plan.settings, plan.placement.device
    optim, run, crops, method = options.optim, options.run, options.crops, plan.options["method"]
    batch = options.derived.batch_per_process
    part = -(-batch // optim.accumulate)
    amp = run.precision != "fp32"
    views = {crops.global_size: crops.global_count}
    if crops.local_count:
        views[crops.local_size] = crops.local_count
    kept, rows = 0.0, 0
    for side, count in views.items():
        try:
            kept += _activations(plan.trunk, side, count * part, amp, run.grad_checkpointing)
        except Exception:
            if not isinstance(plan.trunk, TrunkConfig):
                raise
            return None  # of another library, whose code need not run on tensors without memory
        rows += count * batch
    facts = plan.facts
    head = head_of(method, plan.trunk.embed_dim, int(facts["classes"]), int(facts["images"]))
    trained = count_parameters(plan.trunk) + head.parameters
    shares = plan.placement.world_size if run.fsdp else 1
    weights = trained * FLOAT / MIB / shares
    moments = 2 if optim.name in ("adamw", "muon") else 1
    copies = 2 if head.teacher else 1
    pixels = sum(3 * side**2 * count for side, count in views.items()) * batch
    parts = {
        "activations": (SLACK_ROUNDED if amp and device == "cpu" else SLACK) * kept,
        "loss": rows * head.saved_per_row * FLOAT / MIB
        + LOSS_COPIES * rows * (head.logits + head.pairs * rows) * FLOAT / MIB
        + head.constant * FLOAT / MIB,
        "weights, gradients and optimiser": weights * (1 + copies + moments),
        "images": 2 * FLOAT * pixels / MIB,
        "teacher": teacher_mib(method, plan.options["teacher_settings"], batch),
    }
    if options.derived.test_model:
        tested = max(batch, testing_batch(crops.global_size))
        parts["tests"] = ALIVE * kept / (part * sum(views.values())) * tested
    checkpoint = trained * FLOAT / MIB * (copies + moments)
    loading = _loading_mib(plan, pixels)
    decoded = decoded_mib(facts, plan.options["data"], plan.placement.processes)
    if run.compile:
        parts["compiler"] = COMPILER_MIB
    host = BASE_MIB + checkpoint + decoded
    if device == "cpu":
        parts["copy for checkpoints"] = checkpoint
        parts["decoded images"] = decoded
        if left_to_run(plan.placement, run.deterministic):
            extra = extra_mib(count_parameters(plan.trunk), plan.placement.threads)
            parts["gradients of threads"] = extra if extra <= MOST_MIB else 0.0
        host = BASE_MIB + sum(parts.values())
    return Memory(parts, host, loading, device)


def _loading_mib(plan: Plan, pixels: int) -> float:
    """MiB of a process's loader workers, those of an evaluation among them, and of the launcher.

    Args:
        plan: of the run.
        pixels: numbers in the views of a process's batch.
    """
    processes = plan.placement.processes
    launcher = LAUNCHER_MIB / processes if processes > 1 else 0.0
    each = WORKER_MIB + PREFETCHED * pixels / MIB
    if plan.settings.watch.every != 0 and reads_with_workers(plan.settings):  # beside training's
        side = int(plan.settings.crops.global_size)
        shown = features_batch(plan.settings) * 3 * side**2
        each += WORKER_MIB + PREFETCHED * FLOAT * shown / MIB
    return plan.placement.workers * each + launcher


def refuse_what_cannot_fit(plan: Plan, memory: Memory | None) -> None:
    """Compare an estimate with the machine.

    Raises:
        UserError: there is not enough memory; says what takes less.
    """
    if memory is None or os.environ.get(IGNORE):
        return
    room = find_room(plan.placement.device)
    processes = plan.placement.processes
    one = memory.host + memory.workers
    found, allowed, needed = _short(memory, room, processes, one)
    if found:
        raise UserError(f"{found}. {_what_takes_less(plan, memory, needed - allowed)}")


def _short(memory: Memory, room: Room, processes: int, one: float) -> tuple[str, float, float]:
    """What there is too little of, MiB allowed and needed; empty where the run may fit."""
    if room.device_mib is not None and SURE * memory.device_mib > room.device_mib:
        words = f"on each GPU, which has {gib(room.device_mib)}"
        needed, allowed = memory.device_mib, room.device_mib
    elif room.process_mib is not None and SURE * memory.host > room.process_mib:
        limit = f"{gib(room.process_mib)} ({room.process_limit})"
        words = f"a process, and a process may take {limit}"
        needed, allowed = memory.host, room.process_mib
    elif SURE * processes * one > room.host_mib:
        each = f" ({processes} x {gib(one)})" if processes > 1 else ""
        words = f"of memory{each}, and there are {gib(room.host_mib)} ({room.host_limit})"
        return (
            f"training needs about {gib(processes * one)} {words}",
            room.host_mib / processes,
            one,
        )
    else:
        return "", 0.0, 0.0
    return f"training needs about {gib(needed)} {words}", allowed, needed


def _what_takes_less(plan: Plan, memory: Memory, excess: float) -> str:
    """Options that save `excess` MiB a process, or what else takes less."""
    optim, crops = plan.settings.optim, plan.settings.crops
    world, batch = plan.placement.world_size, int(optim.batch_size)
    grows = sum(memory.parts[name] for name in GROWING)
    share = 1.0 - excess / grows if grows else 0.0  # of the batch, that fits
    ways = []
    if (fitting := int(batch * share) // world * world) >= world:
        ways.append(f"optim.batch_size={fitting}")
        parts = (n for n in range(2, batch // world + 1) if batch % (world * n) == 0)
        alone = 1.0 - excess / memory.parts["activations"]
        now = int(optim.accumulate)
        enough = next((n for n in parts if n > now and now / n <= alone), None)
        if enough is not None:
            ways.append(f"optim.accumulate={enough} for the same batch in parts")
    if crops.local_count > 2:
        ways.append(f"fewer views (crops.local_count={crops.local_count // 2})")
    ways.append(f"smaller ones (less than crops.global_size={crops.global_size})")
    if plan.placement.workers > 1 and memory.workers > 0.1 * memory.host:
        ways.append("data.workers=1")
    ways += ["run.grad_checkpointing=true", "a smaller trunk or larger trunk.patch_size"]
    return f"To save memory: {', '.join(ways)}. Set {IGNORE}=1 in the environment to try anyway"


def _activations(
    trunk: AnyConfig, side: int, images: int, amp: bool, grad_checkpointing: bool
) -> float:
    """MiB that autograd keeps for a number of images."""
    model = sketch(trunk).train()
    model.set_grad_checkpointing(grad_checkpointing)
    patches = (side / trunk.patch_size) ** 2 if isinstance(trunk, ConViTConfig) else side**2 / 64
    small = sum(parameter.numel() for parameter in model.parameters()) * patches <= SMALL
    with torch.random.fork_rng(devices=[]), contextlib.nullcontext() if small else _tracing():
        model._apply(lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype))
        two, three = (_kept(model, count, side, amp) for count in (2, 3))
    each = three - two
    return (two - 2 * each + images * each) / MIB


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    """Tensors have sizes and no memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def _kept(model: Network, count: int, side: int, amp: bool) -> int:
    """Bytes of storages that autograd keeps, parameters left out."""
    tensors = [*model.parameters(), *model.buffers()]
    own = {tensor.untyped_storage()._cdata for tensor in tensors}
    kept: dict[int, int] = {}
    alive: list[object] = []  # an address must not be handed out twice

    def pack(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=amp):
        model(torch.zeros(count, model.config.in_chans, side, side))
    return sum(kept.values())
