"""When a step fails because something else is gone: another process, or a loader worker."""

from __future__ import annotations

from convit_ssl.data.loader_workers import SHARED_MEMORY
from convit_ssl.engines.heartbeat import Heartbeat

# Words of a process that saw another one go, and does not know why.
LOST_ANOTHER = "lost another process"
PEER_SIGNS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset", "Broken pipe")
WORKER_SIGNS = ("DataLoader worker (pid", "unable to allocate shared memory")


def describe_loss(error: RuntimeError, heartbeat: Heartbeat) -> str | None:
    """What this process lost, in a sentence without its full stop; None for any other error.

    Args:
        error: what ended a step.
        heartbeat: of this process; it knows the step, and who else gives no sign of life.
    """
    beat, words = heartbeat.beat, str(error)
    who = f"rank {beat.rank} on {beat.host}"
    if any(sign in words for sign in WORKER_SIGNS):
        return (
            f"{who} lost a loader worker at step {beat.step} ({_cause(words)}): its memory ran "
            f"out, or {SHARED_MEMORY} is full. Give fewer data.workers, or more memory"
        )
    if heartbeat.world_size > 1 and any(sign in words for sign in PEER_SIGNS):
        return f"{who} {LOST_ANOTHER} at step {beat.step} ({_cause(words)}): {heartbeat.describe()}"
    return None


def _cause(words: str) -> str:
    """The line that says it: the first, or the last one of a traceback from another process."""
    lines = words.strip().splitlines() or [""]
    return (lines[-1] if lines[0].startswith("Caught ") else lines[0])[:160]
