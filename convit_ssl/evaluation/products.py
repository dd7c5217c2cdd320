"""Matrix products in float32 on a CPU by the library that is faster here.

PyTorch multiplies float32 matrices by its BLAS. In its builds for x86 that is MKL, which on AMD's
processors with AVX-512 reached half of the speed of oneDNN, the library that PyTorch brings for
half precision and convolutions.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from convit_ssl.models.products import multiplies_by_onednn

Product = Callable[[Tensor, Tensor], Tensor]


def by_blas(left: Float[Tensor, "n k"], right: Float[Tensor, "m k"]) -> Float[Tensor, "n m"]:
    """``left @ right.t()``."""
    return left @ right.t()


def by_onednn(left: Float[Tensor, "n k"], right: Float[Tensor, "m k"]) -> Float[Tensor, "n m"]:
    """The same; the conversions copy, which pays for products as large as a step of a probe."""
    return F.linear(left.to_mkldnn(), right.to_mkldnn()).to_dense()


def fastest(n: int, m: int, k: int, device: torch.device | str = "cpu") -> Product:
    """The faster of both for float32 matrices of this size, timed once on this machine.

    Args:
        n: rows of the left factor.
        m: rows of the right factor.
        k: columns of both.
        device: of the factors; others than a CPU have one library.
    """
    if torch.device(device).type != "cpu" or not torch.backends.mkldnn.is_available():
        return by_blas
    if multiplies_by_onednn():  # without copies
        return by_blas
    return _timed(n, m, k)


@functools.lru_cache(maxsize=64)
def _timed(n: int, m: int, k: int) -> Product:
    left, right = torch.ones(n, k), torch.ones(m, k)
    spent = {product: _seconds(product, left, right) for product in (by_blas, by_onednn)}
    return by_onednn if spent[by_onednn] < 0.9 * spent[by_blas] else by_blas


def _seconds(product: Product, left: Tensor, right: Tensor) -> float:
    """The least of some calls."""
    least = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        product(left, right)
        least = min(least, time.perf_counter() - began)
    return least
