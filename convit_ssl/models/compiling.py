"""What `torch.compile` has to be told for crops of several sizes."""

from __future__ import annotations


def compile_options() -> dict[str, bool]:
    """Options for ``torch.compile(model, options=...)``.

    From the second size of images on, sizes are symbols. PyTorch analyses the memory accesses of
    a GPU's kernels, and with symbols that stopped on an assertion (seen with 2.11).
    """
    import torch._inductor.config  # not at the top: it takes a second

    known = hasattr(torch._inductor.config.triton, "coalesce_tiling_analysis")
    return {"triton.coalesce_tiling_analysis": False} if known else {}
