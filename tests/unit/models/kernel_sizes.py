"""Compiles the Triton kernels for GPUs that need not be there; prints what they would take.

A process of its own for `test_kernels.py`, like `kernel_checks.py`.
"""

from __future__ import annotations

import json

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from convit_ssl.models import kernels

# Compute capability, and bytes of a multiprocessor's memory that one program may have.
GPUS = {"A100": (80, 166912), "RTX 3090": (86, 101376), "H200": (90, 232448)}
GRIDS = [(14, 14), (6, 6), (32, 32), (14, 24)]


def shared_memory(
    kernel: object, constants: dict[str, int], capability: int, **options: int
) -> int:
    """Bytes of a program."""
    names = kernel.arg_names  # type: ignore[attr-defined]
    exact = ("gate", "row", "column", "grad_gate", "grad_row", "grad_column")
    halves = ("content", "value", "out", "grad", "grad_content", "grad_value")
    kinds = dict.fromkeys(exact, "*fp32") | dict.fromkeys(halves, "*bf16")
    signature = {
        name: "constexpr" if name in constants else kinds.get(name, "i32") for name in names
    }
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return int(made.metadata.shared)


def main() -> None:
    found = []
    for gpu, (capability, memory) in GPUS.items():
        for height, width in GRIDS:
            rows, columns = kernels._padded(height), kernels._padded(width)
            constants = {"CHANNELS": 48, "ROWS": rows, "COLUMNS": columns, "BLOCK": kernels.BLOCK}
            warps, stages = kernels.warps(height, width), kernels.stages(rows, columns, memory)
            forward = shared_memory(kernels._forward, {**constants, "PARTS": 3}, capability)
            backward = shared_memory(
                kernels._backward, {**constants, "SHARES": warps}, capability,
                num_warps=warps, num_stages=stages,
            )  # fmt: skip
            found.append([gpu, [height, width], stages, max(forward, backward), memory])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
