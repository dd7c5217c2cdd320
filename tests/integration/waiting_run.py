"""A real training run that counts by line where its steps read a number of a tensor on the host.

    python tests/integration/waiting_run.py OPTION=VALUE ...

On a GPU each such read waits for the device. The last line printed is JSON.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import convit_ssl.adapters  # noqa: E402, F401

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402, isort: skip

READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal"}
STEPS = {"train_step.py:train_step", "train_task.py:run_hooks"}


class Reads(TorchDispatchMode):
    """Counts the reads by the nearest lines outside of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.by_line: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket.__name__ in READS:
            frames = [f for f in traceback.extract_stack()[:-1] if "/torch/" not in f.filename]
            places = [f"{Path(frame.filename).name}:{frame.name}" for frame in frames]
            if not STEPS.isdisjoint(places):
                self.by_line[places[-1]] += 1
        return func(*args, **(kwargs or {}))


def main() -> int:
    from convit_ssl.engines.options.compose import compose_experiment
    from convit_ssl.engines.options.plan import make_plan
    from convit_ssl.engines.options.write import write_config
    from convit_ssl.engines.train import train

    plan = make_plan(compose_experiment(sys.argv[1:]))
    write_config(plan)
    with Reads() as reads:
        code = train(plan, 0, 0, str(Path.cwd() / "meeting"), time.time())
    print(json.dumps(reads.by_line))
    return code


if __name__ == "__main__":
    sys.exit(main())
