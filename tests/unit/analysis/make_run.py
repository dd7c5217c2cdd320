"""A run folder as training leaves it, without training: `python make_run.py OUT [variant]`.

The curves have the shape of a real run's; the checkpoints are a nano model whose gates and
positional attention drift away from the convolutional init.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
import yaml

from convit_ssl.models import create_model


def make_run(
    folder,
    variant="convit_nano",
    epochs=40,
    planned=None,
    checkpoints=2,
    write_gates=True,
    seed=0,
    **overrides,
):
    """Write what training leaves in a run folder, result.json with the last epoch; returns it."""
    folder = Path(folder)
    (folder / "checkpoints").mkdir(parents=True)
    planned = planned or epochs
    config = {
        "experiment": "convit_dino",
        "data": {"name": "digits"},
        "data_dir": None,
        "optim": {"epochs": planned, "warmup_epochs": 4, "lr": 5e-4},
        "seed": seed,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = []
    saved = {1 + round(i * (epochs - 1) / max(checkpoints - 1, 1)) for i in range(checkpoints)}
    if checkpoints == 1:
        saved = {epochs}
    for epoch in range(1, epochs + 1):
        model = drifted(variant, epoch / planned, seed, **overrides)
        rows.append(metrics_row(model, epoch, planned, write_gates, seed))
        if epoch % 5 == 0:
            share = epoch / planned
            rows.append(
                {
                    "kind": "eval",
                    "epoch": epoch,
                    "knn": 0.5 + 0.45 * share,
                    "rankme": 20 + 60 * share,
                }
            )
        if epoch in saved and checkpoints:
            path = folder / "checkpoints" / f"checkpoint_e{epoch:04d}_s{epoch * 56:08d}.torch"
            save_checkpoint(path, model, variant, epoch)
            last = folder / "checkpoints" / "last.torch"
            last.unlink(missing_ok=True)
            last.symlink_to(path.name)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if epochs >= planned:
        (folder / "result.json").write_text("{}")
    return folder


def drifted(variant, progress, seed, **overrides):
    """A model some way from its init: early layers keep their gates, late ones let go."""
    torch.manual_seed(seed)
    model = create_model(variant, **{"num_classes": 0, **overrides}).eval()
    noise = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for index, block in enumerate(model.blocks):
            weight = block.attn.qk.weight if block.use_gpsa else block.attn.qkv.weight
            weight.add_(0.12 * progress * torch.randn(weight.shape, generator=noise))
            if block.use_gpsa:
                heads = model.config.num_heads
                drift = torch.rand(heads, generator=noise) * (index + 0.3)
                if block.attn.use_gating:
                    block.attn.gating_param.sub_(1.6 * progress * drift)
                slopes = block.attn.pos_proj.weight
                slopes[:, :2] += 0.6 * progress * torch.randn(heads, 2, generator=noise)
                slopes[:, 2] *= 1 - 0.5 * progress * torch.rand(heads, generator=noise)
    return model


def metrics_row(model, epoch, planned, write_gates, seed):
    share = epoch / max(planned - 1, 1)
    wobble = math.sin(epoch * 1.7 + seed) * 0.05
    row = {
        "kind": "epoch",
        "epoch": epoch,
        "step": epoch * 56,
        "loss": 2.4 + 4.5 * math.exp(-4 * share) + wobble,
        "lr": 5e-4 * min(1.0, epoch / 4) * (0.5 + 0.5 * math.cos(math.pi * share)),
        "weight_decay": 0.4 - 0.36 * (0.5 + 0.5 * math.cos(math.pi * share)),
        "momentum": 1 - 0.004 * (0.5 + 0.5 * math.cos(math.pi * share)),
        "images_per_s": 612 + 40 * wobble,
        "feature_std": 0.02 + 0.06 * share,
        "teacher_entropy": 5.2 - 2 * share + wobble,
    }
    if write_gates and model.config.num_gpsa_layers:
        row["gates"] = [block.attn.gate.tolist() for block in model.blocks if block.use_gpsa]
    return row


def save_checkpoint(path, model, variant, epoch):
    """In the layout of a training checkpoint; the loader of the tests reads it back."""
    torch.save(
        {
            "classy_state_dict": {"base_model": {"model": {"trunk": model.state_dict()}}},
            "convit_ssl": {
                "format": 1,
                "model": dict(vars(model.config)),
                "variant": variant,
                "method": "dino",
                "epoch": epoch,
            },
        },
        path,
    )


def load(path):
    """The simplest loader of such a checkpoint."""
    content = torch.load(path, weights_only=True)
    entry = content["convit_ssl"]
    model = create_model(entry["variant"], **entry["model"])
    model.load_state_dict(content["classy_state_dict"]["base_model"]["model"]["trunk"])
    model.provenance = {key: entry[key] for key in ("variant", "method", "epoch")}
    return model.eval()


if __name__ == "__main__":
    print(make_run(sys.argv[1], *sys.argv[2:3]))
