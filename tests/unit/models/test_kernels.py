"""The Triton kernels: on a GPU where there is one, and by Triton's interpreter on any machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from convit_ssl.models import fused
from convit_ssl.models.compiling import compile_options

HAS_TRITON = importlib.util.find_spec("triton") is not None
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def run(script: str, *arguments: str, **environment: str) -> Any:
    """What a script beside this file prints last."""
    if not HAS_TRITON:
        pytest.skip("Triton is not installed; `make test` installs it on Linux")
    here = Path(__file__)
    done = subprocess.run(
        [sys.executable, str(here.with_name(script)), *arguments],
        capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": str(here.parents[3]), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=GPU)])
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {**run("kernel_checks.py", request.param), "device": request.param}


@pytest.mark.slow
def test_results_and_gradients_are_those_of_the_dense_map(report: dict[str, Any]) -> None:
    """Of six grids, square and not, and channels that do and do not fill the blocks."""
    assert report["exact"] <= (1e-6 if report["device"] == "cpu" else 1e-3)
    assert report["half"] <= 5e-3


@pytest.mark.slow
def test_a_network_goes_through_them_in_half_precision_alone(report: dict[str, Any]) -> None:
    assert report["in float32"] == 0
    assert report["launches"] == 4  # two layers, forward and backward
    assert report.get("network, exact", 0.0) <= 1e-4
    assert report["network, half"] <= 0.05


@pytest.mark.slow
def test_gradients_of_gates_are_exact_from_closed_to_open(report: dict[str, Any]) -> None:
    assert report["gates"] <= 0.02
    assert report["launches for gates"] == 24  # a layer forward and backward, twelve times


@pytest.mark.slow
def test_compiled_they_are_part_of_one_graph_for_any_grid(report: dict[str, Any]) -> None:
    assert report["compiled"]["launched"] == 4
    assert report["compiled"]["far"] <= 0.05
    assert report["compiled"]["another size"] <= 0.05


@pytest.mark.slow
def test_what_they_cannot_do_is_left_to_products(report: dict[str, Any]) -> None:
    """Gradients of gradients, one gradient for each image, exports, batches without images."""
    assert report["double backward"] <= (1e-4 if report["device"] == "cpu" else 0.1)
    assert report["launches under vmap"] == 0
    assert report["exported"] == 0
    assert report["launches for no image"] == 0


@pytest.mark.slow
def test_who_counts_operations_sees_them(report: dict[str, Any]) -> None:
    assert report["counted"] == 2


@pytest.mark.slow
def test_they_compile_for_gpus_of_little_memory() -> None:
    """And load as far ahead as it allows; also on machines without any GPU."""
    sizes = run("kernel_sizes.py")
    assert len(sizes) == 12
    for gpu, grid, _, needed, memory in sizes:
        assert needed <= memory, (gpu, grid)
    largest = {gpu: stages for gpu, grid, stages, *_ in sizes if grid == [32, 32]}
    assert largest == {"A100": 2, "RTX 3090": 1, "H200": 3}


def test_where_they_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_has_kernels", lambda kind, index: kind == "cuda")
    assert fused.applies(CUDA, torch.bfloat16, (14, 14))
    assert fused.applies(CUDA, torch.float16, (32, 1))
    assert not fused.applies(CUDA, torch.float32, (14, 14))
    assert not fused.applies(CUDA, torch.bfloat16, (33, 14))
    assert not fused.applies(CPU, torch.bfloat16, (14, 14))


@pytest.mark.parametrize(
    ("kind", "gpu", "triton", "capability", "found"),
    [
        ("cuda", True, True, (9, 0), True),
        ("cuda", True, True, (7, 5), False),
        ("cuda", True, False, (9, 0), False),
        ("cuda", False, True, (9, 0), False),  # fake tensors name a device that is not there
        ("cpu", True, True, (9, 0), False),
    ],
)
def test_which_machines_have_them(
    monkeypatch: pytest.MonkeyPatch,
    kind: str, gpu: bool, triton: bool, capability: tuple[int, int], found: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr("convit_ssl.models.kernels", Mock(), raising=False)
    fused._look_for_kernels.cache_clear()
    assert fused._has_kernels(kind, 0) == found
    fused._look_for_kernels.cache_clear()


def test_they_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVIT_SSL_KERNELS", "0")
    assert fused.why_left_out(0) == "CONVIT_SSL_KERNELS=0"


@pytest.mark.slow
def test_without_a_c_compiler_they_are_left_out_with_one_warning(tmp_path: Path) -> None:
    """As in PyTorch's own runtime images. Triton is asked; only the GPU is pretended."""
    nothing = {"PATH": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    warned, found = run("kernel_tools.py", TRITON_LIBCUDA_PATH=str(tmp_path), **nothing)
    assert found == [False, False]
    assert len(warned) == 1
    assert "RuntimeError: Failed to find C compiler" in warned[0]
    assert "CONVIT_SSL_KERNELS=0" in warned[0]


def test_amd_has_not_been_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    fused._look_for_kernels.cache_clear()
    assert not fused._has_kernels("cuda", 0)
    fused._look_for_kernels.cache_clear()


def test_asking_breaks_no_graph() -> None:
    """`importlib` and device properties cannot be traced, so the answer has to be a constant."""

    def ask(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if fused._has_kernels("cuda", 0) else x - 1

    fused._look_for_kernels.cache_clear()
    out = torch.compile(ask, fullgraph=True, backend="eager")(torch.zeros(1))
    assert out == (1 if fused._look_for_kernels("cuda", 0) else -1)


def test_the_compiler_knows_the_options_for_several_sizes() -> None:
    """It refuses names that it does not know, before it compiles anything."""
    torch.compile(lambda x: x * 2, options=compile_options())
    with pytest.raises(RuntimeError, match="Unexpected optimization option"):
        torch.compile(lambda x: x * 2, options={"triton.no_such_option": False})
