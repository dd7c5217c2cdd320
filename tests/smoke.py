"""Does this installation work at all? Run by .ci/run on each Python: python tests/smoke.py.

Imports every module, composes every experiment, trains two steps of the smallest ConViT in plain
PyTorch and four steps of DINO through the launcher, exports that trunk and loads it back. No test
framework is needed.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAUNCHER = Path(__file__).resolve().parents[1] / "tools" / "run_distributed_engines.py"
SMALL = ["config=convit_dino", "data=digits", "run=cpu", "trunk=convit_nano"]
# 1000 images: four steps.
SHORT = ["optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=250", "run.threads=1"]


def import_everything() -> str:
    """Import each module of the package, adapters (and with them the shims) first."""
    import convit_ssl
    import convit_ssl.adapters

    names = [
        module.name
        for module in pkgutil.walk_packages(convit_ssl.__path__, "convit_ssl.")
        if not module.name.startswith("convit_ssl.experiments")
        and not module.name.endswith(".__main__")
    ]
    extras = [name for name in names if not imported(name)]
    without = f", without {', '.join(extras)}" if extras else ""
    return f"{len(names) - len(extras)} modules of {Path(convit_ssl.__file__).parent}{without}"


def imported(name: str) -> bool:
    """Whether it could be imported; only what reads optional formats may lack its library."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        own = (error.name or "").partition(".")[0] == "convit_ssl"
        if own or not name.startswith("convit_ssl.data.readers."):
            raise
        return False
    return True


def compose_everything() -> str:
    """Compose each experiment with its defaults, and once with the smallest choices."""
    from convit_ssl.engines.options.compose import compose_experiment, experiments_dir

    names = sorted(path.stem for path in (experiments_dir() / "config").glob("*.yaml"))
    assert "convit_dino" in names, names
    for name in names:
        compose_experiment([f"config={name}"])
    compose_experiment(SMALL)
    return ", ".join(names)


def train_two_steps() -> str:
    """Two steps on random images: the loss is finite and the weights move."""
    import torch
    from torch.nn.functional import cross_entropy

    from convit_ssl.models import create_model

    torch.manual_seed(0)
    model = create_model("convit_nano", num_classes=10)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    side = model.config.img_size
    losses = []
    for _ in range(2):
        loss = cross_entropy(model(torch.randn(4, 3, side, side)), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(loss == loss and loss < 100 for loss in losses), losses
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return f"loss {losses[0]:.3f}, {losses[1]:.3f} (torch {torch.__version__})"


def train_through_the_launcher() -> str:
    """Four steps of DINO on digits, in a process of its own and an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, str(LAUNCHER), *SMALL, *SHORT],
            cwd=folder,
            env={**os.environ, "CONVIT_SSL_DATA": folder, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=900,
        )
        checkpoints = sorted(path.name for path in Path(folder).glob("runs/**/*.torch"))
        assert checkpoints, "the run wrote no checkpoint"
        (run,) = {path.parents[1] for path in Path(folder).glob("runs/**/last.torch")}
        export_and_load_back(run, Path(folder) / "trunk")
    return f"{', '.join(checkpoints)}; exported and loaded back"


def export_and_load_back(run: Path, out: Path) -> None:
    """The trunk as safetensors and for timm, loaded again with equal features."""
    import timm
    import torch

    from convit_ssl.export import load_trunk

    subprocess.run(
        [
            *(sys.executable, "-m", "convit_ssl.cli.main", "export", str(run)),
            *("--to", "safetensors", "timm", "--out", str(out)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=600,
    )
    (file,) = out.glob("*.safetensors")
    trunk, again = load_trunk(run).eval(), load_trunk(file).eval()
    by_timm = timm.create_model(f"local-dir:{out / 'timm'}", pretrained=True).eval()
    side = trunk.config.img_size
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = trunk(images)
        assert torch.equal(expected, again(images))
        assert (expected - by_timm(images)).abs().max() < 1e-5


def main() -> int:
    """Run the parts in order; the first failure ends it with its traceback."""
    print(f"smoke test on Python {platform.python_version()}", flush=True)
    for part in (
        import_everything,
        compose_everything,
        train_two_steps,
        train_through_the_launcher,
    ):
        start = time.perf_counter()
        outcome = part()
        print(f"  {part.__name__}: {outcome} [{time.perf_counter() - start:.1f} s]", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
