"""Studies of the paper at any size and on any data: their runs, and the command of each."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convit_ssl.errors import UserError
from convit_ssl.evaluation.fingerprint import hash_json

FRACTIONS = (0.05, 0.1, 0.3, 0.5, 1.0)
# Share of the schedule that warms up. The paper's 5 of 300 epochs are too short for few steps.
WARMUP = 0.05

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
        paper: fraction -> the paper's figure, 0..1.
    """

    name: str
    trunk: str
    overrides: tuple[str, ...] = ()
    weights: str | None = None
    paper: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What all runs of a study share.

    Attributes:
        data: group of configs/data.
        data_dir: its folder, where it needs one.
        epochs: at 100 % of the data.
        batch_size: images in a step.
        run: group of configs/run: cpu, gpu1, slurm, ...
        scale_epochs: train for epochs / fraction, so that every run takes the same number of
            steps, as the paper (its released code does not).
        overrides: further settings of every run.
    """

    data: str
    data_dir: str | None = None
    epochs: int = 20
    batch_size: int = 128
    run: str = "cpu"
    scale_epochs: bool = True
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One training run of a study."""

    arm: Arm
    fraction: float
    seed: int
    settings: Settings

    @property
    def name(self) -> str:
        """Of the run folder."""
        slug = re.sub(r"[^a-z0-9]+", "_", self.arm.name.lower()).strip("_")
        return f"{slug}-{100 * self.fraction:g}pct-seed{self.seed}"

    @property
    def epochs(self) -> int:
        """Of this run."""
        scale = 1 / self.fraction if self.settings.scale_epochs else 1.0
        return max(1, round(self.settings.epochs * scale))

    def overrides(self) -> list[str]:
        """The settings of this run, in the words of `convit-ssl train`.

        The one place that knows how experiments are configured.
        """
        settings, arm = self.settings, self.arm
        words = [
            f"config={'convit_finetune' if arm.weights else 'convit_supervised'}",
            f"data={settings.data}",
            f"trunk={arm.trunk}",
            f"run={settings.run}",
            f"optim.epochs={self.epochs}",
            f"optim.warmup_epochs={round(WARMUP * self.epochs)}",
            f"optim.batch_size={settings.batch_size}",
            f"seed={self.seed}",
        ]
        if settings.data_dir:
            words.append(f"data_dir='{settings.data_dir}'")
        if self.fraction < 1:
            words.append(f"data.subset='fraction={self.fraction:g},seed={self.seed}'")
        if arm.weights:
            words.append(f"weights='{arm.weights}'")
        return [*words, *arm.overrides, *settings.overrides]

    def command(self, folder: Path) -> list[str]:
        """The whole command line; running it again goes on from the last checkpoint."""
        train = [sys.executable, "-m", "convit_ssl.cli.main", "train"]
        return [*train, *self.overrides(), f"run.dir='{folder}'"]

    def settings_hash(self) -> str:
        """Of everything but the seed: runs with the same hash may be averaged."""
        words = [word for word in self.overrides() if not word.startswith("seed=")]
        return hash_json([re.sub(r",seed=\d+", "", word) for word in words])


@dataclass(frozen=True)
class Study:
    """A named list of runs.

    Attributes:
        kind: "sample-efficiency" or "ablation".
        title: for the table and the figure.
        runs: in the order in which they start.
    """

    kind: str
    title: str
    runs: tuple[Run, ...]

    @property
    def arms(self) -> list[Arm]:
        """In order, each once."""
        return list({run.arm.name: run.arm for run in self.runs}.values())

    @property
    def fractions(self) -> list[float]:
        """In rising order, each once."""
        return sorted({run.fraction for run in self.runs})


def sample_efficiency(
    trunks: Sequence[str],
    settings: Settings,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = (0, 1, 2),
    weights: Mapping[str, str] | None = None,
    scratch: bool = True,
) -> Study:
    """Every trunk at every fraction of each class, from scratch and from given checkpoints.

    Args:
        trunks: groups of configs/trunk, such as convit_nano, deit_nano, resnet50.
        settings: what all runs share.
        fractions: of the images of each class, 0..1.
        seeds: of the runs, and of the choice of images.
        weights: trunk -> checkpoint that it is also fine-tuned from.
        scratch: whether to train from scratch at all.

    Raises:
        UserError: weights for a trunk that takes no part, or nothing to run.
    """
    weights = dict(weights or {})
    strangers = sorted(set(weights) - set(trunks))
    if strangers:
        raise UserError(
            f"weights are given for {strangers[0]!r}, which is not among the trunks of the study "
            f"({', '.join(trunks)})"
        )
    arms = [Arm(trunk, trunk, paper=_paper_curve(trunk)) for trunk in trunks if scratch]
    arms += [Arm(f"{t}, pretrained", t, weights=weights[t]) for t in trunks if t in weights]
    title = f"Sample efficiency on {settings.data}"
    return Study("sample-efficiency", title, _cross(arms, fractions, seeds, settings))


def ablation(
    size: str,
    settings: Settings,
    presets: Sequence[str] = ("table3",),
    fractions: Sequence[float] = (0.1,),
    seeds: Sequence[int] = (0, 1, 2),
    depth: int = 12,
) -> Study:
    """Variants of ConViT.

    Args:
        size: nano, tiny, small or base.
        settings: what all runs share.
        presets: "table3" (paper, Table 3), "gpsa-layers" or "locality" (grids).
        fractions: of the images of each class.
        seeds: of the runs, and of the choice of images.
        depth: layers of the trunk, for the grid of GPSA layers.

    Raises:
        UserError: an unknown preset.
    """
    arms: list[Arm] = []
    for preset in presets:
        if preset == "table3":
            arms += table3(size)
        elif preset == "gpsa-layers":
            arms += gpsa_layers(size, depth)
        elif preset == "locality":
            arms += locality_strengths(size)
        else:
            raise UserError(
                f"unknown ablation {preset!r}; there are table3, gpsa-layers and locality"
            )
    title = f"Ablation of convit_{size} on {settings.data}"
    return Study("ablation", title, _cross(arms, fractions, seeds, settings))


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


def locality_strengths(size: str) -> list[Arm]:
    """Around the paper's 1: smaller spreads the positional attention wider."""
    return [
        Arm(f"locality strength {s:g}", f"convit_{size}", (f"trunk.locality_strength={s:g}",))
        for s in (0.25, 0.5, 1.0, 1.5, 2.0)
    ]


def check_batch(settings: Settings, images: int, fractions: Sequence[float]) -> None:
    """Refuse a batch that the smallest fraction cannot fill.

    Raises:
        UserError: with the largest batch that fits.
    """
    smallest = round(images * min(fractions))
    if settings.batch_size > smallest:
        raise UserError(
            f"a batch of {settings.batch_size} is more than the {smallest} images of "
            f"{100 * min(fractions):g} % of {settings.data}; use --batch-size {smallest} or less"
        )


def _cross(
    arms: Sequence[Arm], fractions: Sequence[float], seeds: Sequence[int], settings: Settings
) -> tuple[Run, ...]:
    wrong = [fraction for fraction in fractions if not 0 < fraction <= 1]
    if wrong:
        raise UserError(f"a fraction lies above 0 and is at most 1, found {wrong[0]:g}")
    if not arms or not fractions or not seeds:
        raise UserError("the study has no runs: give trunks, fractions and seeds")
    # Seed by seed, so that a study that is stopped early is a smaller whole one.
    return tuple(Run(a, f, seed, settings) for seed in seeds for f in fractions for a in arms)


def _paper_curve(trunk: str) -> dict[float, float]:
    name = {"convit": "ConViT-S", "deit": "DeiT-S"}.get(trunk.split("_")[0], "")
    return dict(PAPER_SAMPLE_EFFICIENCY.get(name, {}))


def describe(settings: Settings) -> dict[str, Any]:
    """For result files."""
    return {
        "data": settings.data,
        "epochs_at_100_percent": settings.epochs,
        "epochs_scaled_by_1_over_fraction": settings.scale_epochs,
        "warmup_share": WARMUP,
        "batch_size": settings.batch_size,
        "run": settings.run,
        "overrides": list(settings.overrides),
    }
