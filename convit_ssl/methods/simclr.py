"""SimCLR: the normalised, temperature-scaled cross-entropy (arXiv:2002.05709)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.methods.base import Crops, Method, Run, register_method
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.gather import full_precision, gather_rows, process_rank
from convit_ssl.methods.heads import mlp
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun, SmallRun
from convit_ssl.options import MethodOptions, option

__all__ = ["NTXentLoss", "SimCLR", "SimCLRHead", "SimCLROptions"]


@dataclass
class SimCLROptions(MethodOptions):
    """SimCLR (arXiv:2002.05709) with a ViT; protocol of MoCo v3 (arXiv:2104.02057).

    The jitter strengths are google-research/simclr's, run.py, line 240, and README.md, line 83.
    """

    temperature: float = option(0.2, "Temperature of the similarities.", above=0)
    hidden_dim: int = option(3072, "Hidden width of the head.", unit="channels", least=1)
    out_dim: int = option(128, "Outputs of the head.", unit="channels", least=1)
    jitter_strength: float = option(
        1.0,
        "Scales the colour jitter; 1 is published for ImageNet, 0.5 for CIFAR-10.",
        unit="factor", least=0,
    )  # fmt: skip


class NTXentLoss(nn.Module):
    """Each view finds its partner among the views of all images of all processes.

    The mean of the loss over processes, and the gradients averaged over them,
    equal those of one process with all images. Every process must hold the same
    number of images.

    Args:
        temperature: divides the cosine similarities (SimCLR 0.1; MoCo v3's ViT
            protocol 0.2).

    Raises:
        ValueError: a temperature that is not above 0.

    Source: arXiv:2002.05709, equation 1.
    """

    def __init__(self, temperature: int | float = 0.1) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0")
        self.temperature = temperature

    def forward(
        self, first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, ""]:
        """Loss of two views, row r of each being image r; embeddings of any length."""
        batch = first.shape[0]
        with torch.autocast(first.device.type, enabled=False):
            local = F.normalize(full_precision(torch.cat((first, second))), dim=-1)
            everyone = gather_rows(local)
            logits = local @ everyone.T / self.temperature  # (2B, 2BN)
        start = process_rank() * 2 * batch
        own = torch.arange(start, start + 2 * batch, device=logits.device)
        logits = logits.scatter(1, own.unsqueeze(1), float("-inf"))
        partner = own.roll(batch)
        return F.cross_entropy(logits, partner)


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
        self.mlp = mlp(widths, use_bn=use_bn)

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        """Embeddings, not normalised."""
        projected: Tensor = self.mlp(x)
        return projected


@register_method
class SimCLR(Method[SimCLROptions]):
    """SimCLR: two views of an image attract, all others repel (arXiv:2002.05709)."""

    name = "simclr"
    Options = SimCLROptions
    published = PublishedRun(300, 1024, 40, "MoCo v3's protocol, its batch of 4096 cut to 1024")
    small = SmallRun(2e-3, 128, "muon")
    pairs = True

    def __init__(self, options: SimCLROptions, run: Run) -> None:
        super().__init__(options, run)
        self.ntxent = NTXentLoss(options.temperature)

    @classmethod
    def views(cls, options: SimCLROptions, crops: Crops) -> AugmentConfig:
        """Two crops made alike."""
        return AugmentConfig.simclr(crops.global_size, crops.global_scale, options.jitter_strength)

    @classmethod
    def head(cls, options: SimCLROptions, width: int, run: Run) -> nn.Module:
        """An MLP of two layers."""
        return SimCLRHead(width, options.hidden_dim, options.out_dim)

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """Less jitter."""
        if small:
            reason = "1 as published hides colours that tell images apart"
            choose.pick("jitter_strength", 0.5, reason)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Contrast of two views; labels are ignored."""
        loss: Tensor = self.ntxent(*output.chunk(2))
        return loss
