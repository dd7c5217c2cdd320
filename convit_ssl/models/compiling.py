"""What `torch.compile` has to be told for crops of several sizes."""

from __future__ import annotations


def compile_options() -> dict[str, bool]:
    """Options for ``torch.compile(model, options=...)``.

    From the second size of images on, sizes are symbols. An analysis of memory accesses that
    PyTorch 2.8 to 2.13 make of a GPU's kernels does not know symbols and stops on an assertion.
    """
    import torch._inductor.config  # not at the top: it takes a second

    known = hasattr(torch._inductor.config.triton, "coalesce_tiling_analysis")
    return {"triton.coalesce_tiling_analysis": False} if known else {}
