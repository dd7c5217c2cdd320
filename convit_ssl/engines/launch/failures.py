"""When a step fails because something is gone: another process, a loader worker, or memory."""

from __future__ import annotations

import traceback
from multiprocessing import resource_sharer

import torch

from convit_ssl.data.loading.loader_workers import SHARED_MEMORY
from convit_ssl.engines.callbacks.heartbeat import Heartbeat
from convit_ssl.models.trunks import TRUNKS
from convit_ssl.schema_resolved import Resolved

# Words of a process that saw another one go, and does not know why.
LOST_ANOTHER = "lost another process"
PEER_SIGNS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset", "Broken pipe")
MEMORY_SIGN = "DefaultCPUAllocator: can't allocate memory"
WORKER_SIGNS = ("DataLoader worker (pid", "unable to allocate shared memory")


def describe_loss(error: Exception, heartbeat: Heartbeat) -> str | None:
    """What this process lost, in a sentence without its full stop; None for any other error.

    Args:
        error: what ended a step.
        heartbeat: of this process; it knows the step, and who else gives no sign of life.
    """
    beat, words = heartbeat.beat, str(error)
    who = f"rank {beat.rank} on {beat.host}"
    if any(sign in words for sign in WORKER_SIGNS) or _was_fetching(error):
        words = words or type(error).__name__
        return (
            f"{who} lost a loader worker at step {beat.step} ({_cause(words)}): its memory ran "
            f"out, or {SHARED_MEMORY} is full. Give fewer data.workers, or more memory"
        )
    if heartbeat.world_size > 1 and any(sign in words for sign in PEER_SIGNS):
        return f"{who} {LOST_ANOTHER} at step {beat.step} ({_cause(words)}): {heartbeat.describe()}"
    return None


def describe_shortage(error: Exception, options: Resolved, heartbeat: Heartbeat) -> str | None:
    """What to do where memory ran out, of a GPU or of the machine; None for any other error.

    Args:
        error: what ended a step.
        options: of the experiment.
        heartbeat: of this process.
    """
    words = str(error)
    if not isinstance(error, torch.OutOfMemoryError) and MEMORY_SIGN not in words:
        return None
    beat, optim = heartbeat.beat, options.optim
    images = options.derived.batch_per_process
    parts = _more_parts(images, optim.accumulate)
    whole = parts is None or options.trunk.variant in TRUNKS
    advice = "" if whole else f"optim.accumulate={parts} for the same batch in more parts, or "
    return (
        f"rank {beat.rank} on {beat.host} ran out of memory at step {beat.step} "
        f"({words.strip().splitlines()[0][:200]}). A process takes {images} images in "
        f"optim.accumulate={optim.accumulate} parts: give {advice}less than "
        f"optim.batch_size={optim.batch_size}. run.precision=bf16, run.grad_checkpointing=true, "
        "fewer crops.local_count and a smaller trunk also save memory. Training up to the last "
        "checkpoint is not lost"
    )


def _more_parts(images: int, parts: int) -> int | None:
    """The next number of equal parts that at least halves them, or None."""
    return next((n for n in range(2 * parts, images + 1) if images % n == 0), None)


def _was_fetching(error: Exception) -> bool:
    """Whether a loader worker was being asked for its batch; one that is gone gives no answer."""
    frames = traceback.extract_tb(error.__traceback__)
    answered_by_none = isinstance(error, (EOFError, OSError))
    return answered_by_none and any(frame.filename == resource_sharer.__file__ for frame in frames)


def _cause(words: str) -> str:
    """The line that says it: the first, or the last one of a traceback from another process."""
    lines = words.strip().splitlines() or [""]
    return (lines[-1] if lines[0].startswith("Caught ") else lines[0])[:160]
