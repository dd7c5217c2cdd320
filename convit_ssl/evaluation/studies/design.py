"""Studies of the paper at any size and on any data: their runs, and the command of each."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.fingerprint import hash_json
from convit_ssl.evaluation.studies.arms import (
    PAPER_SAMPLE_EFFICIENCY,
    Arm,
    gpsa_layers,
    head_positions,
    locality_strengths,
    table3,
)
from convit_ssl.methods import self_supervised
from convit_ssl.models.trunks import is_other

FRACTIONS = (0.05, 0.1, 0.3, 0.5, 1.0)
# Share of the schedule that warms up. The paper's 5 of 300 epochs are too short for few steps.
WARMUP = 0.05
AUTO = "auto"  # in place of a method: config=convit_auto, which chooses one


@dataclass(frozen=True)
class Settings:
    """What all runs of a study share.

    Attributes:
        data: group of configs/data.
        data_dir: its folder, where it needs one.
        epochs: at 100 % of the data.
        images_per_class: number of images per class that count as 100 %; None takes all.
        batch_size: images in a step.
        run: machine preset of configs/run: cpu, gpu1, slurm, ...
        scale_epochs: train for epochs / fraction, so that every run takes the same number of
            steps, as the paper (its released code does not).
        overrides: further settings of every run, or of those of one experiment alone, as in
            ``convit_dino:method.out_dim=512``.
    """

    data: str
    data_dir: str | None = None
    epochs: int = 20
    batch_size: int = 128
    run: str = "cpu"
    scale_epochs: bool = True
    overrides: tuple[str, ...] = ()
    images_per_class: int | None = None


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
        return max(1, round(self.settings.epochs * scale * self.arm.epochs_factor))

    @property
    def subset(self) -> str | None:
        """The images of this run, in the words of `data.subset`; None for all of them."""
        per_class = self.settings.images_per_class
        if per_class is not None:
            return f"per_class={max(1, round(per_class * self.fraction))},seed={self.seed}"
        return f"fraction={self.fraction:g},seed={self.seed}" if self.fraction < 1 else None

    def overrides(self) -> list[str]:
        """The settings of this run, in the words of `convit-ssl train`.

        The one place that knows how experiments are configured.
        """
        settings, arm = self.settings, self.arm
        words = [
            f"config={arm.config}",
            f"data={settings.data}",
            f"trunk={arm.trunk}",
            f"run={settings.run}",
            f"optim.epochs={self.epochs}",
            "watch.every=0",
            f"seed={self.seed}",
        ]
        if arm.labelled:  # the others take batch and warm-up from the number of images
            words += [
                f"optim.warmup_epochs={WARMUP * self.epochs:g}",
                f"optim.batch_size={settings.batch_size}",
                f"method.test_every={self.epochs}",  # val is looked at once, at the end
            ]
        if settings.data_dir:
            words.append(f"data_dir='{settings.data_dir}'")
        if self.subset:
            words.append(f"data.subset='{self.subset}'")
        if arm.weights:
            words.append(f"weights='{arm.weights}'")
        return [*words, *arm.overrides, *self._given()]

    def _given(self) -> list[str]:
        """The user's further settings, as far as they are for this run's experiment and network."""
        found: list[str] = []
        for word in self.settings.overrides:
            experiment, colon, rest = word.partition(":")
            if not colon or "=" in experiment:
                found.append(word)
            elif experiment == self.arm.config:
                found.append(rest)
        if is_other(self.arm.trunk):  # a CNN has no patches and the like
            found = [word for word in found if not word.startswith("trunk.")]
        return found

    def command(self, folder: Path) -> list[str]:
        """The whole command line; running it again resumes from the last checkpoint."""
        train = [sys.executable, "-m", "convit_ssl.cli.main", "train"]
        return [*train, *self.overrides(), f"run.dir='{folder}'"]

    def settings_hash(self) -> str:
        """Of everything but the seed: runs with the same hash may be averaged."""
        return hash_json(self.repeated_options())

    def repeated_options(self) -> list[str]:
        """The options of this run without its seed, which repetitions of it share."""
        words = [word for word in self.overrides() if not word.startswith("seed=")]
        return [re.sub(r",seed=\d+", "", word) for word in words]


@dataclass(frozen=True)
class Study:
    """A named list of runs.

    Attributes:
        kind: "sample-efficiency", "ablation" or "pretraining".
        title: for the table and the figure.
        runs: in the order in which they start.
        images: hash of all images that the runs take theirs from; runs on others do not belong.
        weights: path of each checkpoint that is fine-tuned, to the hash of the file.
    """

    kind: str
    title: str
    runs: tuple[Run, ...]
    images: str = ""
    weights: Mapping[str, str] = field(default_factory=dict)

    def marks(self, run: Run) -> dict[str, str]:
        """What has to be the same in rows of one setting that are averaged."""
        weights = self.weights.get(run.arm.weights or "")
        found = {"settings": run.settings_hash(), "images": self.images, "weights": weights}
        return {name: mark for name, mark in found.items() if mark}

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
        fractions: fractions of the labelled images of each class, from 0 to 1.
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
        presets: "table3" (paper, Table 3), "gpsa-layers" or "locality" (grids), or "positions" (of
            the heads at the start).
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
        elif preset == "positions":
            arms += head_positions(size)
        else:
            raise UserError(
                f"unknown ablation {preset!r}; choose from table3, gpsa-layers, locality and "
                "positions"
            )
    title = f"Ablation of convit_{size} on {settings.data}"
    return Study("ablation", title, _cross(arms, fractions, seeds, settings))


def pretraining(
    trunks: Sequence[str],
    methods: Sequence[str],
    settings: Settings,
    seeds: Sequence[int] = (0, 1, 2),
) -> Study:
    """Every trunk pretrained by every method, and with labels from as many views of the images.

    Args:
        trunks: groups of configs/trunk.
        methods: names of methods that need no labels; `AUTO` lets a race choose one.
        settings: what all runs share. Supervised training sees one view of an image where the
            others see two, so it gets twice the epochs.
        seeds: of the runs, and of the choice of images.

    Raises:
        UserError: an unknown method, or nothing to run.
    """
    known = (*self_supervised(), AUTO)
    unknown = sorted(set(methods) - set(known))
    if unknown:
        raise UserError(f"unknown method {unknown[0]!r}; choose from {', '.join(known)}")
    arms = [
        Arm(f"{trunk}, {method}", trunk, experiment=f"convit_{method}")
        for trunk in trunks
        for method in methods
    ]
    arms += [Arm(f"{trunk}, supervised", trunk, epochs_factor=2.0) for trunk in trunks]
    title = f"Pretraining on {settings.data}"
    return Study("pretraining", title, _cross(arms, [1.0], seeds, settings))


def check_batch(settings: Settings, images: int, fractions: Sequence[float]) -> None:
    """Refuse a batch that the smallest fraction cannot fill.

    Args:
        settings: with the batch.
        images: of the study's 100 %.
        fractions: of these images.

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
