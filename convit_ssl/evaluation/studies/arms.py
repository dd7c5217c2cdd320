"""What studies compare: the networks of the paper's Tables 2 and 3, and grids around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# arXiv:2103.10697, Table 2: ImageNet top-1 of ConViT-S and DeiT-S, epochs scaled by 1/fraction.
PAPER_SAMPLE_EFFICIENCY: dict[str, dict[float, float]] = {
    "ConViT-S": {0.05: 0.478, 0.1: 0.596, 0.3: 0.737, 0.5: 0.782, 1.0: 0.814},
    "DeiT-S": {0.05: 0.348, 0.1: 0.480, 0.3: 0.661, 0.5: 0.746, 1.0: 0.799},
}


@dataclass(frozen=True)
class Arm:
    """One line of a study: what is trained.

    Attributes:
        name: for a reader.
        trunk: group of configs/trunk.
        overrides: further settings.
        weights: checkpoint to fine-tune; None trains from scratch.
        experiment: of configs/config; by default the one that learns labels, from scratch or
            from `weights`.
        epochs_factor: on the study's epochs.
        paper: fraction -> the paper's figure, 0..1.
    """

    name: str
    trunk: str
    overrides: tuple[str, ...] = ()
    weights: str | None = None
    paper: Mapping[float, float] = field(default_factory=dict)
    experiment: str = ""
    epochs_factor: float = 1.0

    @property
    def config(self) -> str:
        """The experiment that it runs."""
        return self.experiment or ("convit_finetune" if self.weights else "convit_supervised")

    @property
    def labelled(self) -> bool:
        """Whether it learns labels, and so ends with an accuracy on val."""
        return self.config in ("convit_supervised", "convit_finetune")


def table3(size: str) -> list[Arm]:
    """The rows of the paper's Table 3 (there: ConViT-S+, 100 and 10 % of ImageNet)."""
    convit, deit = f"convit_{size}", f"deit_{size}"
    no_gating, no_init = "trunk.use_gating=false", "trunk.local_init=false"
    frozen = "trunk.freeze_position=true"

    def arm(name: str, trunk: str, full: float, tenth: float, *overrides: str) -> Arm:
        return Arm(name, trunk, overrides, paper={1.0: full, 0.1: tenth})

    return [
        arm("ConViT", convit, 0.822, 0.597),
        arm("no gating", convit, 0.820, 0.574, no_gating),
        arm("no conv init", convit, 0.814, 0.569, no_init),
        arm("no gating, no conv init", convit, 0.816, 0.546, no_gating, no_init),
        arm("frozen position", convit, 0.786, 0.543, frozen),
        arm("frozen position, no conv init", convit, 0.737, 0.448, frozen, no_init),
        arm("DeiT", deit, 0.791, 0.478),
    ]


def gpsa_layers(size: str, depth: int) -> list[Arm]:
    """From none to all but one layer, in at most seven steps."""
    counts = sorted({round(i * (depth - 1) / 6) for i in range(7)})
    return [
        Arm(f"{n} GPSA layers", f"convit_{size}", (f"trunk.num_gpsa_layers={n}",)) for n in counts
    ]


def head_positions(size: str) -> list[Arm]:
    """Where the heads of GPSA layers start: the paper's kernel, random impulses, anywhere."""
    return [
        Arm("kernel", f"convit_{size}"),
        Arm("random impulses", f"convit_{size}", ("trunk.impulses=true",)),
        Arm("no conv init", f"convit_{size}", ("trunk.local_init=false",)),
    ]


def locality_strengths(size: str) -> list[Arm]:
    """Around the paper's 1: smaller spreads the positional attention wider."""
    return [
        Arm(f"locality strength {s:g}", f"convit_{size}", (f"trunk.locality_strength={s:g}",))
        for s in (0.25, 0.5, 1.0, 1.5, 2.0)
    ]
