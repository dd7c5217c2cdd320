"""``bench builds --against lightly``: SimCLR as lightly's example trains it, on a plain ViT.

As a program, ``python -m convit_ssl.bench.peers``, it trains, writes the network as timm does, and
ends; `builds` measures its processor time and its features. Views, head, loss, optimiser, rate and
batch are lightly's own (its examples/pytorch/simclr.py); the network is timm's plain ViT with the
width, depth, heads and patches of the network that it stands beside, and sees crops of the same
size. ``lightly-adamw`` is the same with AdamW at 1e-3, since SGD hardly trains a ViT.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convit_ssl.errors import UserError

BATCH = 256
RATES = {"sgd": 0.06, "adamw": 1e-3}
PEERS = {"lightly": "sgd", "lightly-adamw": "adamw"}


@dataclass(frozen=True)
class Network:
    """The plain ViT of a peer.

    Attributes:
        side: of the crops, pixels.
        patch: side of a patch, pixels.
        width: channels.
        depth: blocks.
        heads: of each block.
    """

    side: int
    patch: int
    width: int
    depth: int
    heads: int

    @classmethod
    def beside(cls, words: Sequence[str]) -> Network:
        """The one of a ConViT's size, for the command line of its training."""
        from convit_ssl.engines.options.compose import compose_experiment
        from convit_ssl.engines.options.plan import make_plan

        plan = make_plan(compose_experiment(words))
        trunk: Any = plan.trunk
        side = int(plan.settings.crops.global_size)
        return cls(side, trunk.patch_size, trunk.embed_dim, trunk.depth, trunk.num_heads)

    def words(self) -> list[str]:
        """As options of this program."""
        fields = dataclasses.asdict(self).items()
        return [word for name, value in fields for word in (f"--{name}", str(value))]

    def build(self) -> nn.Module:
        """Randomly initialised, without a classifier."""
        import timm

        size: dict[str, Any] = {"img_size": self.side, "patch_size": self.patch}
        size |= {"embed_dim": self.width, "depth": self.depth, "num_heads": self.heads}
        made: nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **size)
        made.model_args = size  # type: ignore[assignment]
        return made


def version(peer: str) -> str:
    """Name and version, for tables.

    Raises:
        UserError: lightly is not installed.
    """
    if importlib.util.find_spec("lightly") is None:
        raise UserError(f"--against {peer} needs lightly: pip install lightly")
    return f"lightly {importlib.metadata.version('lightly')}, {PEERS[peer]}"


def command(
    peer: str, network: Network, data: str, data_dir: str | None, subset: str | None = None
) -> list[str]:
    """Words that train the peer; epochs, seed and the output folder are still to come."""
    line = [sys.executable, "-m", "convit_ssl.bench.peers"]
    line += ["--data", data, "--optimiser", PEERS[peer]]
    line += ["--data-dir", data_dir] if data_dir else []
    line += ["--subset", subset] if subset else []
    return [*line, *network.words()]


def train(args: argparse.Namespace) -> nn.Module:
    """Train as lightly's example does; the trunk."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    from convit_ssl.data.opening import open_dataset

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    network = Network(args.side, args.patch, args.width, args.depth, args.heads)
    trunk = network.build()
    head = SimCLRProjectionHead(network.width, network.width, 128)
    images = open_dataset(
        args.data, args.data_dir, "train", SimCLRTransform(network.side), args.subset
    )
    loader = torch.utils.data.DataLoader(
        images, min(BATCH, len(images)), shuffle=True, drop_last=True
    )
    criterion = NTXentLoss()
    optimiser = _optimiser(args.optimiser)([*trunk.parameters(), *head.parameters()])
    for epoch in range(args.epochs):
        total = 0.0
        for (first, second), _, _ in loader:
            loss = criterion(head(trunk(first)), head(trunk(second)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(loader):.4f}", flush=True)
    return trunk


def _optimiser(name: str) -> Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]:
    made = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    return lambda parameters: made(parameters, lr=RATES[name])


def save(trunk: Any, folder: Path) -> None:
    """As timm writes a network for a hub, with the normalisation that lightly's views have."""
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.models import save_for_hf

    side = trunk.model_args["img_size"]
    trunk.pretrained_cfg = {
        **trunk.pretrained_cfg,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "input_size": (3, side, side),
        "crop_pct": 1.0,
    }
    save_for_hf(trunk, str(folder), model_args=trunk.model_args)


def main() -> None:
    """Train on a collection and write the trunk."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in dataclasses.fields(Network):
        parser.add_argument(f"--{field.name}", type=int, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--subset")
    parser.add_argument("--optimiser", choices=tuple(RATES), required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    save(train(args), args.out)


if __name__ == "__main__":
    main()
