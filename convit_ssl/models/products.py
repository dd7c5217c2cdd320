"""Matrix products in float32 on a CPU by oneDNN, where that is the faster library.

PyTorch multiplies float32 matrices by its BLAS. In its builds for x86 that is MKL, which leaves
the 512-bit units of AMD's processors unused: oneDNN, which PyTorch brings for half precision and
convolutions, is twice as fast there. It takes over where the switch for its products in float32
allows bfloat16. Only processors with AMX round to bfloat16 then; what is used here is tested to
be as exact as float32 is, and is left alone otherwise.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# This environment variable at 0 leaves the products to PyTorch's BLAS.
SWITCH = "CONVIT_SSL_ONEDNN"
_BY_BLAS, _BY_ONEDNN = "ieee", "bf16"
_UNSET = "none"
# Of the result's norm: float32 is at 2e-7 to 4e-7 here, bfloat16 at 2e-3.
_EXACT = 2e-6
_CPU_INFO = Path("/proc/cpuinfo")
_AMD = "AuthenticAMD"


@contextmanager
def onednn_products(wanted: bool = True) -> Iterator[bool]:
    """Multiply float32 matrices by oneDNN in this block, where that is exact and faster.

    Applies to the whole process. A setting of the user's own is kept, as are the products of
    PyTorch before 2.9, which has no such switch.

    Args:
        wanted: whether to look at all.

    Yields:
        Whether oneDNN multiplies in it.
    """
    if not wanted or not _is_faster() or _setting() != _UNSET:
        yield multiplies_by_onednn()
        return
    _set(_BY_ONEDNN)
    try:
        yield True
    finally:
        _set(_UNSET)


@contextmanager
def blas_products(x: Tensor) -> Iterator[None]:
    """Leave `onednn_products` for this block, whose products are small and many.

    oneDNN prepares each product, which takes longer than PyTorch's fused attention needs for one
    of its blocks.

    Args:
        x: a factor; nothing changes unless it is in float32 and on a CPU.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.float32:
        yield
        return
    if not multiplies_by_onednn():
        yield
        return
    _set(_BY_BLAS)
    try:
        yield
    finally:
        _set(_BY_ONEDNN)


def multiplies_by_onednn() -> bool:
    """Whether `onednn_products` is at work."""
    return _setting() == _BY_ONEDNN


def _setting() -> str:
    if not _has_switch():
        return _UNSET
    return str(_matmul().fp32_precision)


def _set(value: str) -> None:
    _matmul().fp32_precision = value


@functools.cache
def _has_switch() -> bool:
    return hasattr(_matmul(), "fp32_precision")


def _matmul() -> Any:
    return getattr(torch.backends.mkldnn, "matmul", None)


@functools.cache
def _is_faster() -> bool:
    """Whether this processor gains, and loses no digit."""
    if os.environ.get(SWITCH) == "0" or not _has_switch():
        return False
    if not torch.backends.mkldnn.is_available() or "mkl" not in torch.__config__.show().lower():
        return False
    return _vendor() == _AMD and _has_avx512() and _is_exact()


def _vendor() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return _AMD if _AMD in platform.processor() else ""
    return next((line.split(":", 1)[1].strip() for line in lines if "vendor_id" in line), "")


def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _is_exact() -> bool:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(128, 512, generator=generator) for _ in range(2))
    before = _setting()
    _set(_BY_ONEDNN)
    try:
        made = left @ right.t()
    finally:
        _set(before)
    exact = left.double() @ right.double().t()
    return float((made - exact).norm() / exact.norm()) < _EXACT
