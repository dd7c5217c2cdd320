"""Training as the published code does it, to compare with: loops where ours has one call.

Source: github.com/facebookresearch/dino, main_dino.py, utils.py and vision_transformer.py;
arXiv:2002.05709, equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiCropConViT(nn.Module):
    """timm's ConViT for crops of several sizes, position embeddings resampled as in DINO."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        model.patch_embed.strict_img_size = False

    def forward(self, images: Tensor) -> Tensor:
        """Features of the class token (B, D)."""
        model = self.model
        tokens = model.patch_embed(images)
        embedding: Tensor = model.pos_embed
        if tokens.shape[1] != embedding.shape[1]:
            side, own = round(tokens.shape[1] ** 0.5), round(embedding.shape[1] ** 0.5)
            as_map = embedding.reshape(1, own, own, -1).permute(0, 3, 1, 2)
            as_map = F.interpolate(as_map, size=(side, side), mode="bicubic")
            embedding = as_map.permute(0, 2, 3, 1).reshape(1, side * side, -1)
        x = tokens + embedding
        for index, block in enumerate(model.blocks):
            if index == model.local_up_to_layer:
                class_token = model.cls_token.expand(len(x), -1, -1)
                x = torch.cat([class_token, x], dim=1)
            x = block(x)
        normed: Tensor = model.norm(x)
        return normed[:, 0]


class LoopedDINOLoss(nn.Module):
    """Cross-entropy of each pair of crops in turn."""

    center: Tensor

    def __init__(self, out_dim: int, num_crops: int, num_global_crops: int = 2) -> None:
        super().__init__()
        self.num_crops, self.num_global_crops = num_crops, num_global_crops
        self.register_buffer("center", torch.zeros(1, out_dim))

    def forward(self, student: Tensor, teacher: Tensor, teacher_temperature: float) -> Tensor:
        """Loss of crop-major logits; moves the centre."""
        students = (student.float() / 0.1).chunk(self.num_crops)
        targets = ((teacher.float() - self.center) / teacher_temperature).softmax(-1)
        losses = [
            -(target * F.log_softmax(crop, dim=-1)).sum(-1).mean()
            for i, target in enumerate(targets.detach().chunk(self.num_global_crops))
            for j, crop in enumerate(students)
            if i != j
        ]
        with torch.no_grad():
            self.center.mul_(0.9).add_(0.1 * teacher.float().mean(0, keepdim=True))
        return sum(losses[1:], losses[0]) / len(losses)


def looped_nt_xent(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """SimCLR's loss with masks of similarities, as in the early PyTorch versions of it."""
    both = F.normalize(torch.cat([first, second]).float(), dim=-1)
    rows = len(both)
    similarity = torch.exp(both @ both.T / temperature)
    mask = ~torch.eye(rows, dtype=torch.bool, device=both.device)
    negatives = similarity.masked_select(mask).view(rows, -1).sum(-1)
    positive = torch.exp((both[: rows // 2] * both[rows // 2 :]).sum(-1) / temperature)
    return -(positive.repeat(2) / negatives).log().mean()


def clip_in_turn(parameters: Sequence[nn.Parameter], max_norm: float) -> None:
    """Clip each tensor's gradient separately; the comparison waits for the device each time."""
    for parameter in parameters:
        if parameter.grad is not None:
            coefficient = max_norm / (parameter.grad.norm(2) + 1e-6)
            if coefficient < 1:
                parameter.grad.mul_(coefficient)


@torch.no_grad()
def average_in_turn(student: nn.Module, teacher: nn.Module, momentum: float) -> None:
    """Move each of the teacher's tensors separately."""
    for source, target in zip(student.parameters(), teacher.parameters(), strict=True):
        target.mul_(momentum).add_((1 - momentum) * source.detach())
