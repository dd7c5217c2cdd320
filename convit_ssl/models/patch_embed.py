"""From an image to tokens: one for each square patch."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PatchEmbed"]


class PatchEmbed(nn.Module):
    """Cut an image into square patches and project each to a token."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(
        self, x: Float[Tensor, "batch chans height width"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Tokens in row-major order."""
        # What torch.fx traces with is no tensor, and gets the convolution.
        if isinstance(x, Tensor) and x.is_cuda and self._is_a_product():  # type: ignore[redundant-expr]
            return self._product(x)
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens

    def _is_a_product(self) -> bool:
        """Whether nobody put another layer, or eyes, where the convolution was."""
        proj = self.proj
        if type(proj) is not nn.Conv2d or proj._forward_hooks or proj._forward_pre_hooks:
            return False
        side_by_side = proj.stride == proj.kernel_size and proj.padding == (0, 0)
        return side_by_side and proj.groups == 1

    def _product(self, x: Tensor) -> Tensor:
        """The same as a matrix product, for which a GPU has tensor cores.

        cuDNN's convolution of half precision images of three channels uses none: 1.9 ms of the
        49 of a ConViT-Small step on an H200.
        """
        height, width = self.proj.kernel_size
        cut = x.unflatten(3, (-1, width)).unflatten(2, (-1, height))  # (B, C, rows, h, columns, w)
        patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)
