"""Exact counts (operations, saved bytes) and alternating times of what is compared."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

MIB = 2.0**20

# They allocate or rename, and launch nothing.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach",
         "_unsafe_view", "alias", "lift_fresh", "promote_types",
         "_reshape_alias", "scalar_tensor"}  # fmt: skip


class OperationCounter(TorchDispatchMode):
    """Counts ATen operations that do work: no views, no allocations.

    On a GPU that is, to a few per cent, the number of kernels of an eager run.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: dict[str, int] = {}

    @property
    def total(self) -> int:
        """Operations so far."""
        return sum(self.counts.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket is torch.ops.aten.dropout and not args[2]:
            return args[0]
        with self:  # inference mode hands over whole operations such as linear
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        name = func.overloadpacket.__name__
        returns = func._schema.returns
        aliases = bool(returns) and returns[0].alias_info is not None
        is_view = aliases and not returns[0].alias_info.is_write
        if not is_view and name not in _FREE:
            self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **kwargs)


def count_operations(run: Callable[[], object]) -> int:
    """Operations of one call."""
    counter = OperationCounter()
    with counter:
        run()
    return counter.total


def saved_bytes(run: Callable[[], object], model: nn.Module) -> int:
    """Bytes that autograd keeps for the backward pass of one call, parameters left out.

    A storage counts once, and as a whole: keeping a view keeps what it looks at.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    own |= {buffer.untyped_storage().data_ptr() for buffer in model.buffers()}
    kept: dict[int, int] = {}
    alive: list[object] = []  # an address must not be handed out twice

    def pack(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        # Nothing is handed back: an operation that saves its own output would then hold itself,
        # and never be freed.

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        run()
    return sum(kept.values())


class SavedMemory(NamedTuple):
    """What training keeps between forward and backward, in MiB."""

    per_image: float
    per_step: float  # whatever the batch: folded weights, casts of weights


def saved_memory(
    model: nn.Module, forward: Callable[[Tensor], object], image: Tensor
) -> SavedMemory:
    """Exact, from batches of two and three of the image (3, height, width)."""

    def kept(count: int) -> int:
        images = image.expand(count, -1, -1, -1).clone()
        return saved_bytes(lambda: forward(images), model)

    two, three = kept(2), kept(3)
    return SavedMemory((three - two) / MIB, (two - 2 * (three - two)) / MIB)


def peak_memory(run: Callable[[], object], device: torch.device) -> float:
    """The most that a call holds beyond what was there before it, in MiB; calls it twice."""
    run()  # what stays is allocated here: gradients' buffers, optimiser state, caches
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it talks on the terminal
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results: Any = profiler.profiler.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = itertools.accumulate(event.nbytes() for event in events)
    return max(held, default=0) / MIB


class Timing(NamedTuple):
    """Seconds of one of several alternating contenders."""

    median: float
    lower: float  # quartiles
    upper: float
    samples: list[float]


def alternate(
    contenders: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    clock: str = "wall",
    warmup: int = 2,
    optional: Collection[str] = (),
) -> dict[str, Timing]:
    """Time each contender in turn, `repeats` rounds, so that drift and neighbours hit all alike.

    Args:
        contenders: what is compared, by name.
        repeats: rounds after the warm-up.
        device: a CUDA device is waited for after each call.
        clock: "wall", or "cpu" for the time of this thread alone: on a busy machine with one
            thread, that is the wall time of an idle one.
        warmup: rounds that are thrown away.
        optional: contenders that are left out of what is returned if they run out of memory.

    Raises:
        torch.OutOfMemoryError: of another contender.
    """
    now = {"wall": time.perf_counter, "cpu": time.thread_time}[clock]
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + repeats):
        for name in list(samples):
            gc.collect()
            _wait(device)
            start = now()
            with spare_memory(name in optional) as enough:
                contenders[name]()
            _wait(device)
            spent = now() - start
            if not enough:
                del samples[name]
            elif turn >= warmup:
                samples[name].append(spent)
    return {name: _timing(values) for name, values in samples.items()}


@contextlib.contextmanager
def spare_memory(optional: bool = True) -> Iterator[list[bool]]:
    """Goes on where memory does not suffice; the list it gives is empty then.

    Raises:
        torch.OutOfMemoryError: of what is not optional.
    """
    enough = [True]
    try:
        yield enough
    except torch.OutOfMemoryError as error:
        if not optional:
            raise
        enough.clear()
        error.__traceback__ = None  # its frames hold what was computed so far
        gc.collect()
        torch.cuda.empty_cache()


def ratio(samples: Timing, reference: Timing) -> float:
    """How many times faster than the reference: the median over rounds of the pairs' ratios."""
    pairs = zip(reference.samples, samples.samples, strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def _timing(values: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return Timing(median, lower, upper, values)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
