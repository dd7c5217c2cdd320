"""Parts of projection heads, and DINO's head: plain MLPs over the trunk's features.

Batch normalisation uses the statistics of all processes. Over which crops it runs follows the
released code: most heads see all crops in one call and normalise them together (dino utils.py,
line 629; simclr model.py, line 68; swav src/resnet50.py, line 323). Heads of methods that call
their network once per view (moco-v3 moco/builder.py, lines 86-94) take ``views``.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.batch_norm import HeadBatchNorm
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

    Attributes:
        keep_features: hold what was put in, for a loss that looks at it too.
        features: (rows, in_dim) of the last forward pass, until the loss takes them.

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
        self.mlp = mlp(widths, activation=nn.GELU, use_bn=use_bn)
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last_layer = WeightNormLinear(
            bottleneck_dim, out_dim, train_magnitude=not norm_last_layer
        )
        self.keep_features = False
        self.features: Tensor | None = None

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        """Logits over the prototypes, not yet divided by a temperature."""
        self.features = x if self.keep_features else None
        logits: Tensor = self.last_layer(F.normalize(full_precision(self.mlp(x)), dim=-1))
        return logits

    def take_features(self) -> Tensor:
        """The features, once: they hold the graph of a whole forward pass."""
        features, self.features = self.features, None
        assert features is not None
        return features


def mlp(
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
