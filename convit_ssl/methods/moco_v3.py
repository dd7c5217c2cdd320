"""MoCo v3: symmetric contrast with a momentum encoder, no queue (arXiv:2104.02057)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.methods.base import (
    Crops,
    Progress,
    Run,
    TeacherMethod,
    TeacherOptions,
    register_method,
)
from convit_ssl.methods.batch_norm import HeadBatchNorm, apply_by_view
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.gather import full_precision, gather_constant_rows, process_rank
from convit_ssl.methods.heads import mlp
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun
from convit_ssl.options import option

__all__ = ["MoCoV3", "MoCoV3Head", "MoCoV3Loss", "MoCoV3Options"]


@dataclass
class MoCoV3Options(TeacherOptions):
    """MoCo v3 (arXiv:2104.02057)."""

    temperature: float = option(0.2, "Temperature of the similarities.", above=0)
    hidden_dim: int = option(4096, "Hidden width of both heads.", unit="channels", least=1)
    out_dim: int = option(256, "Outputs of the heads.", unit="channels", least=1)
    momentum: float = option(0.99, "Momentum of the teacher at the start.", least=0, most=1)


class MoCoV3Loss(nn.Module):
    """Predictions of one view against momentum projections of the other, both ways.

    Keys of all processes are negatives and carry no gradient. The mean over
    processes equals one process with all images; every process must hold the
    same number of them.

    Args:
        temperature: 0.2 for ViTs; the loss is scaled by twice of it, as published.

    Raises:
        ValueError: a temperature that is not above 0.

    Source: arXiv:2104.02057, algorithm 1; github.com/facebookresearch/moco-v3.
    """

    def __init__(self, temperature: int | float = 0.2) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0")
        self.temperature = temperature

    def forward(
        self,
        query_first: Float[Tensor, "batch dim"],
        query_second: Float[Tensor, "batch dim"],
        key_first: Float[Tensor, "batch dim"],
        key_second: Float[Tensor, "batch dim"],
    ) -> Float[Tensor, ""]:
        """Loss of two views: queries from the student's predictor, keys from the teacher."""
        return self._contrast(query_first, key_second) + self._contrast(query_second, key_first)

    def _contrast(self, query: Tensor, key: Tensor) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            queries = F.normalize(full_precision(query), dim=-1)
            keys = gather_constant_rows(F.normalize(full_precision(key), dim=-1))
            logits = queries @ keys.T / self.temperature  # (B, BN)
        rows = torch.arange(query.shape[0], device=logits.device)
        own = rows + process_rank() * query.shape[0]
        return 2 * self.temperature * F.cross_entropy(logits, own)


class MoCoV3Head(nn.Module):
    """Projector (student and momentum encoder) with a predictor (student only).

    ``forward`` gives predictions, :meth:`project` the projections; the momentum
    encoder only calls :meth:`project`.

    Args:
        in_dim: width of the trunk.
        hidden_dim: of both MLPs.
        out_dim: width of the embedding.
        projector_layers: 3 for ViTs.
        predictor_layers: 2.
        views: in the features of a forward pass; each is normalised separately, as published.

    Source: github.com/facebookresearch/moco-v3, moco/builder.py, class MoCo_ViT.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int = 4096,
        out_dim: int = 256,
        projector_layers: int = 3,
        predictor_layers: int = 2,
        views: int = 1,
    ) -> None:
        super().__init__()
        self.views = views
        projector = [in_dim, *[hidden_dim] * (projector_layers - 1), out_dim]
        predictor = [out_dim, *[hidden_dim] * (predictor_layers - 1), out_dim]
        self.projector = mlp(projector, use_bn=True, bias=False)
        self.projector.append(HeadBatchNorm(out_dim, affine=False))
        self.predictor = mlp(predictor, use_bn=True, bias=False)
        self.predictor.append(HeadBatchNorm(out_dim, affine=False))

    def project(
        self, x: Float[Tensor, "rows in_dim"], views: int | None = None
    ) -> Float[Tensor, "rows out_dim"]:
        """Projections, of the momentum encoder. ``views`` as in :meth:`forward`."""
        return apply_by_view(self.projector, x, views or self.views)

    def forward(
        self, x: Float[Tensor, "rows in_dim"], views: int | None = None
    ) -> Float[Tensor, "rows out_dim"]:
        """Predictions, of the student.

        Args:
            x: features of one view, or of several, view-major.
            views: how many views ``x`` holds, instead of the constructor's.
        """
        return apply_by_view(self.predictor, self.project(x, views), views or self.views)


@register_method
class MoCoV3(TeacherMethod[MoCoV3Options]):
    """MoCo v3: queries of one view find the momentum key of the other (arXiv:2104.02057)."""

    name = "moco_v3"
    Options = MoCoV3Options
    published = PublishedRun(300, 1024, 40, "as published, the batch of 4096 cut to 1024")
    pairs = True

    def __init__(self, options: MoCoV3Options, run: Run) -> None:
        super().__init__(options, run)
        self.contrast = MoCoV3Loss(options.temperature)
        self._keys: tuple[Tensor, ...] = ()

    @classmethod
    def views(cls, options: MoCoV3Options, crops: Crops) -> AugmentConfig:
        """BYOL's pair. Source: facebookresearch/moco-v3, main_moco.py, lines 117 and 262-285."""
        return AugmentConfig.byol(crops.global_size, crops.global_scale, "bilinear")

    @classmethod
    def head(cls, options: MoCoV3Options, width: int, run: Run) -> nn.Module:
        """Projector and predictor, each view normalised separately."""
        return MoCoV3Head(width, options.hidden_dim, options.out_dim, views=run.global_crops)

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """The published momentum, for any number of images."""
        choose.pick("momentum", 0.99, "as published for ViTs; rises to 1 by a cosine")

    def observe(self, inputs: Any, progress: Progress) -> None:
        """Keys of both views from the momentum encoder, without its predictor."""
        teacher: Any = self.teacher
        features = self.teacher_features(list(inputs))
        with torch.no_grad():
            self._keys = teacher.heads[0].project(features).chunk(2)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Symmetric contrast; labels are ignored."""
        loss: Tensor = self.contrast(*output.chunk(2), *self._keys)
        return loss

    def on_update(self, student: nn.Module, progress: Progress) -> None:
        """Move the momentum encoder by the next step's momentum.

        The release moves it before it computes a step's keys (moco-v3, moco/builder.py, line 90),
        which is after the update of the step before.
        """
        super().on_update(student, replace(progress, step=progress.step + 1))
