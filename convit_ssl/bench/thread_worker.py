"""A process that trains when `bench threads` tells it to, and sleeps otherwise.

It reads seconds from its input, a line each, and answers with a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from convit_ssl.engines.pace import Pace
from convit_ssl.models import create_model

SETTLING = 60.0  # seconds at most until a run has chosen its threads


def main() -> None:
    """Build the network that the command line describes, and answer until the input ends."""
    setting = json.loads(sys.argv[1])
    step = make_step(setting)
    torch.set_num_threads(setting["threads"])
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        pace = Pace(setting["threads"]) if setting["chooses"] else None
        print(json.dumps(train(step, float(line), pace)), flush=True)


def make_step(setting: dict[str, Any]) -> Any:
    """Forward, backward and AdamW of a trunk over random images."""
    torch.manual_seed(0)
    patch = {} if setting["patch"] is None else {"patch_size": setting["patch"]}
    model = create_model(f"convit_{setting['size']}", img_size=setting["side"], **patch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images = torch.randn(setting["images"], 3, setting["side"], setting["side"])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(images).square().mean().backward()
        optimizer.step()

    return step


def train(step: Any, seconds: float, pace: Pace | None) -> dict[str, Any]:
    """Steps for a number of seconds, after choosing the number of threads if requested.

    Returns:
        ``steps``, ``seconds`` and ``cpu_seconds`` of these steps, ``threads`` at their end, and
        ``settling``, the seconds before them.
    """
    began = time.perf_counter()
    while pace is not None and time.perf_counter() - began < SETTLING:
        if _paced(step, pace):
            break
    start, cpu, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        steps += 1
        if pace is None:
            step()
        else:
            _paced(step, pace)
    spent = time.perf_counter() - start
    return {
        "steps": steps,
        "seconds": spent,
        "cpu_seconds": time.process_time() - cpu,
        "threads": torch.get_num_threads(),
        "settling": start - began,
    }


def _paced(step: Any, pace: Pace) -> bool:
    """A step with the number of threads of now; whether it led to a decision."""
    torch.set_num_threads(pace.threads)
    start = time.perf_counter()
    step()
    decided = pace.step(time.perf_counter() - start) is not None
    torch.set_num_threads(pace.threads)
    return decided or len(pace.ladder) == 1


if __name__ == "__main__":
    main()
