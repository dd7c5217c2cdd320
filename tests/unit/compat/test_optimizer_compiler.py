"""PyTorch's compiler is imported when something is compiled, and then does what it did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from convit_ssl.compat import optimizer_compiler

STEPS = """
import json, sys
import convit_ssl.compat as compat
if {ours}:
    compat.install()
import torch
torch.manual_seed(0)
layer = torch.nn.Linear(3, 2)
optimizer = torch.optim.{optimizer}(layer.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    layer(torch.rand(4, 3)).square().sum().backward()
    optimizer.step()
loaded = "torch._dynamo" in sys.modules
print(json.dumps([loaded, layer.weight.tolist()]))
"""


def run(optimizer: str, ours: bool) -> Any:
    code = STEPS.format(optimizer=optimizer, ours=ours)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_the_same_weights_without_it(optimizer: str) -> None:
    loaded, weights = run(optimizer, ours=True)
    assert not loaded
    assert weights == run(optimizer, ours=False)[1]


def test_a_run_does_not_load_it(tmp_path: Path) -> None:
    arguments = [
        *("train", "config=convit_dino", "data=digits", "run=cpu", "trunk=convit_nano"),
        *("optim.epochs=1", "data.subset=per_class=4,seed=0"),
    ]
    code = f"""
import sys
from convit_ssl.cli.main import run_command
failed = run_command({arguments[0]!r}, {arguments[1:]!r})
sys.exit(failed or " ".join({{"torch._dynamo", "sympy"}} & sys.modules.keys()) or None)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-500:]


def test_a_compiled_step_still_works() -> None:
    """With the compiler loaded, each method is the one that PyTorch wrote."""
    import torch._dynamo

    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.5)

    @torch.compile(backend="eager")
    def step() -> None:
        optimizer.step()

    weight.grad = torch.ones(3)
    step()
    assert weight.tolist() == [0.5, 0.5, 0.5]


def test_gradients_stay_off_in_a_step() -> None:
    seen = []

    class Optimizer(torch.optim.SGD):
        pass

    def step(self: object, closure: object = None) -> None:
        seen.append(torch.is_grad_enabled())

    plain = optimizer_compiler._with_gradients(step)
    weight = torch.nn.Parameter(torch.ones(1))
    plain(Optimizer([weight], lr=0.1))
    plain(Optimizer([weight], lr=0.1, differentiable=True))
    assert seen == [False, True] and torch.is_grad_enabled()
    optimizer_compiler.apply(torch.optim)  # twice changes nothing
    before = torch.optim.SGD.step
    optimizer_compiler.apply(torch.optim)
    assert torch.optim.SGD.step is before
