"""When the Triton kernels of `kernels` do the positional half, and how `torch.compile` sees them.

They apply to half precision on a GPU, up to grids of 32 x 32 patches (512 px at patches of 16).
Everything else takes the products of `position`.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16)
# A grid is held at once; a larger one would not fit in a multiprocessor.
LARGEST_SIDE = 32
# From here on tensor cores know bfloat16.
LEAST_CAPABILITY = (8, 0)
# This environment variable at 0 leaves the kernels out.
SWITCH = "CONVIT_SSL_KERNELS"
FAILED = "Triton cannot build for this GPU"


class Gradients(NamedTuple):
    """Those of `add_separable`, in the order of its inputs."""

    content: Tensor
    content_gate: Tensor
    value: Tensor
    row: Tensor
    column: Tensor


def applies(device: torch.device, dtype: torch.dtype, grid: tuple[int, int]) -> bool:
    """Whether values of this kind, on a grid of (height, width) patches, go through a kernel."""
    if dtype not in DTYPES or _is_exported():
        return False
    return max(grid) <= LARGEST_SIDE and _has_kernels(device.type, device.index)


def _is_exported() -> bool:
    """Into a graph that has to run where this package is not."""
    compiling, by_dynamo = torch.compiler.is_compiling(), torch.compiler.is_dynamo_compiling()
    return torch._C._get_tracing_state() is not None or (compiling and not by_dynamo)


def _is_watched() -> bool:
    """By a compiler, or by a mode that looks at every operation; see `torch.library`."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def _has_kernels(kind: str, index: int | None) -> bool:
    return _look_for_kernels(kind, index)


# A compiler cannot trace this, and asks for it as a constant. So does the decorator
# `torch.compiler.assume_constant_result`, whose import takes longer than that of all models.
_has_kernels._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _look_for_kernels(kind: str, index: int | None) -> bool:
    if kind != "cuda" or not torch.cuda.is_available():
        return False
    left_out = why_left_out(index)
    if left_out.startswith(FAILED):
        warnings.warn(f"GPSA in half precision runs slower than it could: {left_out}", stacklevel=2)
    return not left_out


def why_left_out(index: int | None) -> str:
    """Why half precision on a GPU does without the kernels; "" where it has them.

    Args:
        index: of the GPU; None for the current one.
    """
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    if torch.version.hip is not None:
        return "nothing has been tried on AMD's GPUs"
    capability = torch.cuda.get_device_capability(index)
    if capability < LEAST_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]}, and bfloat16 begins at 8.0"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        from convit_ssl.models import kernels

        kernels.reach_gpu(torch.cuda.current_device() if index is None else index)
    except Exception as error:  # of any kind: what fails are other people's programs
        words = (str(error).splitlines() or [""])[0]
        return (
            f"{FAILED} ({type(error).__name__}: {words}). It needs a C compiler, Python's headers "
            f"(python3-dev) and a folder that it may write, TRITON_CACHE_DIR; {SWITCH}=0 does "
            "without it and without this warning"
        )
    return ""


def add_separable(
    content: Tensor, content_gate: Tensor, value: Tensor, row: Tensor, column: Tensor
) -> Tensor:
    """``content_gate * content + (row kron column) @ value``, gate and factors of any dtype.

    Shapes as in `position`.
    """
    # Unwatched, an operator would only cost more than the kernel's launch.
    run = torch.ops.convit_ssl.add_separable if _is_watched() else _add_separable
    out: Tensor = run(content, content_gate, value, row, column)
    return out


def separable_gradients(
    grad: Tensor, content: Tensor, content_gate: Tensor, value: Tensor, row: Tensor, column: Tensor
) -> Gradients:
    """Gradients of all inputs; in float32 those of each image's gates and factors."""
    run = torch.ops.convit_ssl.separable_gradients if _is_watched() else _separable_gradients
    return Gradients(*run(grad, content, content_gate, value, row, column))


def _add_separable(
    content: Tensor, content_gate: Tensor, value: Tensor, row: Tensor, column: Tensor
) -> Tensor:
    from convit_ssl.models import kernels

    out = _like(value)
    with _on_device_of(value):
        kernels.add_separable(
            _readable(content), content_gate, _readable(value), _square(row), _square(column), out
        )
    return out


def _separable_gradients(
    grad: Tensor, content: Tensor, content_gate: Tensor, value: Tensor, row: Tensor, column: Tensor
) -> Gradients:
    from convit_ssl.models import kernels

    made = _gradients_like(value, content_gate, row, column)
    with _on_device_of(value):
        kernels.separable_gradients(
            _readable(grad), _readable(content), content_gate,
            _readable(value), _square(row), _square(column), made,
        )  # fmt: skip
    return made


def _like(value: Tensor) -> Tensor:
    """(B, H, N, d), laid out so that merging heads is free."""
    batch, heads, tokens, channels = value.shape
    return value.new_empty(batch, tokens, heads, channels).transpose(1, 2)


def _gradients_like(value: Tensor, content_gate: Tensor, row: Tensor, column: Tensor) -> Gradients:
    of_gate, of_row, of_column = (
        x.new_empty(x.shape, dtype=torch.float32) for x in (content_gate, row, column)
    )
    return Gradients(_like(value), of_gate, _like(value), of_row, of_column)


def _readable(x: Tensor) -> Tensor:
    """The kernels read channels side by side; every other stride is as it comes."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _square(factor: Tensor) -> Tensor:
    size = factor.shape[-1]
    return factor if factor.stride()[-2:] == (size, 1) else factor.contiguous()


def _on_device_of(x: Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


# The kernels read any strides, so a compiler need not copy what it hands over.
_library = torch.library.Library("convit_ssl", "FRAGMENT")
_TAGS = (torch.Tag.flexible_layout, torch.Tag.pt2_compliant_tag)
_library.define(
    "add_separable(Tensor content, Tensor content_gate, Tensor value, Tensor row, Tensor column)"
    " -> Tensor",
    tags=_TAGS,
)
_library.define(
    "separable_gradients(Tensor grad, Tensor content, Tensor content_gate, Tensor value,"
    " Tensor row, Tensor column) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=_TAGS,
)
_library.impl("add_separable", _add_separable, "CompositeExplicitAutograd")
_library.impl("separable_gradients", _separable_gradients, "CompositeExplicitAutograd")


@torch.library.register_fake("convit_ssl::add_separable", lib=_library)  # type: ignore[untyped-decorator]
def _(content: Tensor, content_gate: Tensor, value: Tensor, row: Tensor, column: Tensor) -> Tensor:
    return _like(value)


@torch.library.register_fake("convit_ssl::separable_gradients", lib=_library)  # type: ignore[untyped-decorator]
def _(
    grad: Tensor, content: Tensor, content_gate: Tensor, value: Tensor, row: Tensor, column: Tensor
) -> Gradients:
    return _gradients_like(value, content_gate, row, column)
