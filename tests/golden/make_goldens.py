"""Losses of 20 steps on a processor, for each method.

Make them again after a change that is meant to change them, and say in the commit why:

    python -m tests.golden.make_goldens [experiment ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.quick_run import Run

FILE = Path(__file__).with_name("losses.json")
COMMON = """
data=digits run=cpu trunk=convit_nano trunk.embed_dim=32 trunk.depth=3 trunk.num_gpsa_layers=2
trunk.patch_size=4 crops.global_size=8 optim.batch_size=100 optim.epochs=2 optim.warmup_epochs=1
run.threads=1 run.precision=fp32 data.workers=0 run.tensorboard=false run.name=run watch.every=0
"""
# What else makes each method small; a head of 64 or so outputs.
EXPERIMENTS = {
    "convit_dino": "crops.local_count=2 crops.local_size=4 "
    "method.hidden_dim=32 method.bottleneck_dim=16 method.out_dim=64",
    "convit_simclr": "method.hidden_dim=32 method.out_dim=16",
    "convit_moco_v3": "method.hidden_dim=32 method.out_dim=16",
    "convit_swav": "crops.local_count=2 crops.local_size=4 "
    "method.hidden_dim=32 method.out_dim=16 method.prototypes=32",
    "convit_barlow_twins": "method.hidden_dim=32 method.out_dim=16",
}


def tiny_run(root: Path, experiment: str, *more: str) -> Run:
    """Two epochs of ten steps."""
    run = Run(root)
    options = f"{COMMON} {EXPERIMENTS[experiment]}".split()
    run.arguments = [f"config={experiment}", *options, f"run.root={root}", *more]
    return run


def golden_losses(run: Run) -> dict[str, list[float]]:
    """Means of both epochs, and the losses of steps 10 and 20."""
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    losses: dict[str, list[float]] = {"epoch": [], "step": []}
    for line in lines:
        if line["kind"] in losses:
            losses[line["kind"]].append(line["loss"])
    return losses


def main(names: list[str]) -> None:
    """Run the experiments, all of them unless some are named, and write their losses."""
    goldens = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in names or EXPERIMENTS:
        with tempfile.TemporaryDirectory() as folder:
            run = tiny_run(Path(folder), name)
            if run.complete():
                sys.exit(run.text())
            goldens[name] = golden_losses(run)
    FILE.write_text(json.dumps(dict(sorted(goldens.items())), indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
