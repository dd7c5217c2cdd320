"""Every option of a method, with its type, unit and default: the section ``method``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DINOOptions:
    """DINO (arXiv:2104.14294). Temperatures and momenta as published for ViT-S/16.

    Attributes:
        koleo_weight: of DINOv2's spreading of features (arXiv:2304.07193), for each global
            crop; 0 as DINO was published, 0.1 in DINOv2.
    """

    name: str = "dino"
    out_dim: int = 65536
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    norm_last_layer: bool = True
    use_bn: bool = False
    freeze_last_layer_epochs: float = 1
    momentum: float = 0.996
    momentum_end: float = 1.0
    student_temperature: float = 0.1
    warmup_teacher_temperature: float = 0.04
    teacher_temperature: float = 0.04
    warmup_teacher_temperature_epochs: float = 0
    center_momentum: float = 0.9
    koleo_weight: float = 0.0


@dataclass
class SimCLROptions:
    """SimCLR (arXiv:2002.05709) with a ViT; protocol of MoCo v3 (arXiv:2104.02057).

    Attributes:
        jitter_strength: of the colour jitter; 1 is published for ImageNet, 0.5 for CIFAR-10
            (google-research/simclr, run.py, line 240, and README.md, line 83).
    """

    name: str = "simclr"
    temperature: float = 0.2
    hidden_dim: int = 3072
    out_dim: int = 128
    jitter_strength: float = 1.0


@dataclass
class MoCoV3Options:
    """MoCo v3 (arXiv:2104.02057)."""

    name: str = "moco_v3"
    temperature: float = 0.2
    hidden_dim: int = 4096
    out_dim: int = 256
    momentum: float = 0.99
    momentum_end: float = 1.0


@dataclass
class SwAVOptions:
    """SwAV (arXiv:2006.09882).

    Attributes:
        queue_length: images before, of all processes, that help to balance a small batch; 0 for
            none. 3840 is published for batches of 256.
        queue_start_epoch: from which it is used, once it is full.
    """

    name: str = "swav"
    temperature: float = 0.1
    hidden_dim: int = 2048
    out_dim: int = 128
    prototypes: int = 3000
    epsilon: float = 0.05
    sinkhorn_iterations: int = 3
    freeze_prototypes_epochs: float = 1
    queue_length: int = 0
    queue_start_epoch: float = 15


@dataclass
class BarlowTwinsOptions:
    """Barlow Twins (arXiv:2103.03230).

    Attributes:
        scale_loss: factor on the loss; 0.024 as published for LARS, 1 for AdamW, which a factor
            hardly changes.
    """

    name: str = "barlow_twins"
    hidden_dim: int = 8192
    out_dim: int = 8192
    redundancy_weight: float = 0.0051
    scale_loss: float = 1.0


@dataclass
class SupervisedOptions:
    """Supervised training, also for fine-tuning. Mixup, cutmix and erasing are timm's.

    Attributes:
        num_classes: None takes it from the data.
        repeats: repeated augmentation (arXiv:1902.05509), copies of an image per epoch's list.
        ema: decay of an average of the weights; None keeps none.
        freeze_trunk_epochs: epochs in which only the classifier learns.
        distill_from: a checkpoint of a classifier that teaches by its hard labels.
        test_every: epochs between two tests on val; after the last epoch there is one always.
            None: so many that tests take a tenth of the time of training at most.
    """

    name: str = "supervised"
    num_classes: int | None = None
    smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    erasing: float = 0.25
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    repeats: int = 3
    ema: float | None = None
    freeze_trunk_epochs: float = 0
    distill_from: str | None = None
    test_every: int | None = None


@dataclass
class LinearOptions:
    """Linear probes of a frozen trunk, one head per learning rate and choice of features.

    Attributes:
        learning_rates: absolute, each scaled by batch / 256.
        holdout: share of train on which the best head is chosen.
        test_every: epochs between two tests on val; after the last epoch there is one always.
            None: so many that tests take a tenth of the time of training at most.
    """

    name: str = "linear"
    num_classes: int | None = None
    learning_rates: list[float] = field(
        default_factory=lambda: [
            1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1,
        ]
    )  # fmt: skip
    holdout: float = 0.1
    test_every: int | None = None


METHODS: dict[str, type] = {
    "dino": DINOOptions,
    "simclr": SimCLROptions,
    "moco_v3": MoCoV3Options,
    "swav": SwAVOptions,
    "barlow_twins": BarlowTwinsOptions,
    "supervised": SupervisedOptions,
    "linear": LinearOptions,
}
