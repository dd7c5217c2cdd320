"""Projection heads, plain MLPs over the trunk's class token or pooled features.

Defaults are the published ones for ViTs unless said otherwise; widths come as
plain arguments, ``in_dim`` first.

Batch normalisation uses the statistics of all processes. Over which crops it runs follows the
released code: DINO's, SimCLR's and SwAV's heads see all crops in one call and normalise them
together (dino utils.py, line 629; simclr model.py, line 68; swav src/resnet50.py, line 323);
MoCo v3 and Barlow Twins call their networks once per view (moco-v3 moco/builder.py, lines 86-94;
barlowtwins main.py, lines 208-212), so their heads take ``views``.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.batch_norm import HeadBatchNorm, apply_by_view
from convit_ssl.methods.gather import full_precision


class WeightNormLinear(nn.Module):
    """Linear map without bias whose rows are ``weight_g * weight_v / |weight_v|``.

    Parameter names are those of ``torch.nn.utils.weight_norm`` and so of DINO's
    checkpoints, and the module can be deep-copied.

    Args:
        in_dim: input width.
        out_dim: rows of the weight.
        train_magnitude: False keeps ``weight_g`` at 1.
    """

    def __init__(self, in_dim: int, out_dim: int, train_magnitude: bool = False) -> None:
        super().__init__()
        direction = nn.Linear(in_dim, out_dim, bias=False).weight.detach()
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1), requires_grad=train_magnitude)
        self.weight_v = nn.Parameter(direction.clone())

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        """The linear map."""
        norm = torch.linalg.vector_norm(self.weight_v, dim=1, keepdim=True)
        return F.linear(x.to(norm.dtype), self.weight_v * (self.weight_g / norm))


class DINOHead(nn.Module):
    """Three-layer GELU MLP, bottleneck, unit length, weight-normalised last layer.

    State-dict keys are DINO's: ``mlp.{0,2,4}.{weight,bias}``,
    ``last_layer.weight_g``, ``last_layer.weight_v``.

    Args:
        in_dim: width of the trunk.
        out_dim: prototypes (K); small data sets want 1024 (see ``scale``).
        hidden_dim: width of the MLP.
        bottleneck_dim: width at which features are normalised.
        num_layers: linear layers before the last one.
        use_bn: batch normalisation between them (DINO: for convnets).
        norm_last_layer: keep ``weight_g`` at 1 (True for small ViTs; False may
            gain a little with large ones, at some risk).

    Source: github.com/facebookresearch/dino, vision_transformer.py.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        num_layers: int = 3,
        use_bn: bool = False,
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), bottleneck_dim]
        self.mlp = _mlp(widths, activation=nn.GELU, use_bn=use_bn)
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last_layer = WeightNormLinear(
            bottleneck_dim, out_dim, train_magnitude=not norm_last_layer
        )

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        """Logits over the prototypes, not yet divided by a temperature."""
        logits: Tensor = self.last_layer(F.normalize(full_precision(self.mlp(x)), dim=-1))
        return logits


class SimCLRHead(nn.Module):
    """ReLU MLP with batch normalisation between layers (arXiv:2002.05709, section 4.2).

    The loss normalises its outputs.

    Args:
        in_dim: width of the trunk.
        hidden_dim: 4 x 768 in the published ViT-B protocol.
        out_dim: width of the embedding.
        num_layers: linear layers.
        use_bn: batch normalisation after each hidden layer.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int = 3072,
        out_dim: int = 128,
        num_layers: int = 2,
        use_bn: bool = True,
    ) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.mlp = _mlp(widths, use_bn=use_bn)

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        """Embeddings, not normalised."""
        projected: Tensor = self.mlp(x)
        return projected


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

    Source: github.com/facebookresearch/moco-v3, moco/builder.py, class MoCo_ViT.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int = 4096,
        out_dim: int = 256,
        projector_layers: int = 3,
        predictor_layers: int = 2,
    ) -> None:
        super().__init__()
        projector = [in_dim, *[hidden_dim] * (projector_layers - 1), out_dim]
        predictor = [out_dim, *[hidden_dim] * (predictor_layers - 1), out_dim]
        self.projector = _mlp(projector, use_bn=True, bias=False)
        self.projector.append(HeadBatchNorm(out_dim, affine=False))
        self.predictor = _mlp(predictor, use_bn=True, bias=False)
        self.predictor.append(HeadBatchNorm(out_dim, affine=False))

    def project(
        self, x: Float[Tensor, "rows in_dim"], views: int = 1
    ) -> Float[Tensor, "rows out_dim"]:
        """Projections, of the momentum encoder. ``views`` as in :meth:`forward`."""
        return apply_by_view(self.projector, x, views)

    def forward(
        self, x: Float[Tensor, "rows in_dim"], views: int = 1
    ) -> Float[Tensor, "rows out_dim"]:
        """Predictions, of the student.

        Args:
            x: features of one view, or of several, view-major.
            views: how many views ``x`` holds; each is normalised by itself, as published.
        """
        return apply_by_view(self.predictor, self.project(x, views), views)


class SwAVHead(nn.Module):
    """Projection to the unit sphere and scores against unit prototypes.

    Args:
        in_dim: width of the trunk.
        num_prototypes: 3000 for ImageNet's 1000 classes; fewer for small collections. More than
            ``out_dim``, or an embedding at right angles to all of them agrees with every view.
        hidden_dim: of the projection MLP.
        out_dim: width of the embedding.

    Source: github.com/facebookresearch/swav, src/resnet50.py.
    """

    def __init__(
        self,
        in_dim: int,
        num_prototypes: int = 3000,
        hidden_dim: int = 2048,
        out_dim: int = 128,
    ) -> None:
        super().__init__()
        self.projection_head = _mlp([in_dim, hidden_dim, out_dim], use_bn=True)
        self.prototypes = nn.Linear(out_dim, num_prototypes, bias=False)
        self.normalize_prototypes()

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Puts the prototypes back on the unit sphere; call before each step."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def embed(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        """Embeddings on the unit sphere."""
        return F.normalize(full_precision(self.projection_head(x)), dim=1)

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch prototypes"]:
        """Cosine of each embedding with each prototype."""
        scores: Tensor = self.prototypes(self.embed(x).to(self.prototypes.weight.dtype))
        return scores


class BarlowTwinsHead(nn.Module):
    """Three linear layers of one width, batch-normalised; the loss standardises.

    Args:
        in_dim: width of the trunk.
        hidden_dim: 8192 is published for ResNet-50, where accuracy grows with the
            width (arXiv:2103.03230, figure 4); 2048 keeps the head smaller than a
            small ViT.
        out_dim: width of the embedding.
        num_layers: linear layers.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int = 2048, out_dim: int = 2048, num_layers: int = 3
    ) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.projector = _mlp(widths, use_bn=True, bias=False)

    def forward(
        self, x: Float[Tensor, "rows in_dim"], views: int = 1
    ) -> Float[Tensor, "rows out_dim"]:
        """Embeddings, not normalised.

        Args:
            x: features of one view, or of several, view-major.
            views: how many views ``x`` holds; each is normalised by itself, as published.
        """
        return apply_by_view(self.projector, x, views)


def _mlp(
    widths: list[int],
    activation: type[nn.Module] = nn.ReLU,
    use_bn: bool = False,
    bias: bool = True,
) -> nn.Sequential:
    """Linear layers of these widths, activation (and norm) between them."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(widths)):
        last = index == len(widths) - 2
        layers.append(nn.Linear(before, after, bias=bias))
        if not last:
            layers += [HeadBatchNorm(after)] if use_bn else []
            layers.append(activation())
    return nn.Sequential(*layers)
