"""Write the goldens anew after a change that is meant to change them; say in the commit why.

    python -m tests.golden.make_goldens [name ...]

Names are those of `tests.golden.nets` (options, keys, draws, help, errors, steps: seconds
each) and of
experiments, whose real runs of 20 steps are in losses.json (most of a minute each). Without a name
everything is made.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

import convit_ssl.compat
from tests.golden.nets import NETS, write
from tests.quick_run import Run

FILE = Path(__file__).with_name("losses.json")
COMMON = """
data=digits run=cpu trunk=convit_nano trunk.embed_dim=32 trunk.depth=3 trunk.num_gpsa_layers=2
trunk.patch_size=4 crops.global_size=8 optim.batch_size=100 optim.epochs=2 optim.warmup_epochs=1
run.threads=1 run.precision=fp32 data.workers=0 run.tensorboard=false run.name=run watch.every=0
optim.name=adamw
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


# Rounding differs from library to library, and twenty steps make it visible.
PRODUCTS = {"CONVIT_SSL_ONEDNN": "0"}


def golden_losses(run: Run) -> dict[str, list[float]]:
    """Means of both epochs, and the losses of steps 10 and 20."""
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    losses: dict[str, list[float]] = {"epoch": [], "step": []}
    for line in lines:
        if line["kind"] in losses:
            losses[line["kind"]].append(line["loss"])
    return losses


def main(names: list[str]) -> None:
    """Make what is named, everything unless something is."""
    convit_ssl.compat.install()
    torch.set_num_threads(1)
    unknown = set(names) - {*NETS, *EXPERIMENTS}
    if unknown:
        sys.exit(
            f"unknown: {', '.join(sorted(unknown))} (available: {', '.join(NETS)}, "
            f"{', '.join(EXPERIMENTS)})"
        )
    for name, make in NETS.items():
        if not names or name in names:
            write(name, make())
    goldens = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in [name for name in EXPERIMENTS if not names or name in names]:
        with tempfile.TemporaryDirectory() as folder:
            run = tiny_run(Path(folder), name)
            if run.complete(**PRODUCTS):
                sys.exit(run.text())
            goldens[name] = golden_losses(run)
    FILE.write_text(json.dumps(dict(sorted(goldens.items())), indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
