"""Every option of a method, with its type, default, unit, range and meaning: ``method.*``."""

from __future__ import annotations

from dataclasses import dataclass

from convit_ssl.options import option

_TEST_EVERY = (
    "Epochs between two tests on val; there is always one after the last epoch. By default tests "
    "take a tenth of the time of training at most."
)
_CLASSES = "Number of classes; by default that of the data."


@dataclass
class DINOOptions:
    """DINO (arXiv:2104.14294). Temperatures and momenta as published for ViT-S/16."""

    name: str = "dino"
    out_dim: int = option(65536, "Outputs of the head.", unit="channels", least=2)
    hidden_dim: int = option(2048, "Hidden width of the head.", unit="channels", least=1)
    bottleneck_dim: int = option(
        256, "Width before the last layer of the head.", unit="channels", least=1
    )
    norm_last_layer: bool = option(
        True, "Keep the length of the last layer's weights at 1, which is more stable."
    )
    use_bn: bool = option(False, "Batch normalisation in the head.")
    freeze_last_layer_epochs: float = option(
        1, "The last layer does not learn for this long at the start.", unit="epochs", least=0
    )
    momentum: float = option(0.996, "Of the teacher's weights at the start.", least=0, most=1)
    momentum_end: float = option(1.0, "Of the teacher's weights at the end.", least=0, most=1)
    student_temperature: float = option(0.1, "Divides the student's outputs.", above=0)
    warmup_teacher_temperature: float = option(
        0.04, "Divides the teacher's outputs at the start.", above=0
    )
    teacher_temperature: float = option(
        0.04, "Divides the teacher's outputs after the warm-up.", above=0
    )
    warmup_teacher_temperature_epochs: float = option(
        0, "Linear change from the one temperature to the other.", unit="epochs", least=0
    )
    center_momentum: float = option(
        0.9, "Of the running mean that is subtracted from the teacher's outputs.", least=0, most=1
    )
    koleo_weight: float = option(
        0.0,
        "Weight of DINOv2's spreading of features (arXiv:2304.07193) for each large crop; 0.1 in "
        "DINOv2.",
        unit="factor", least=0,
    )  # fmt: skip


@dataclass
class SimCLROptions:
    """SimCLR (arXiv:2002.05709) with a ViT; protocol of MoCo v3 (arXiv:2104.02057).

    The jitter strengths are google-research/simclr's, run.py, line 240, and README.md, line 83.
    """

    name: str = "simclr"
    temperature: float = option(0.2, "Divides the similarities.", above=0)
    hidden_dim: int = option(3072, "Hidden width of the head.", unit="channels", least=1)
    out_dim: int = option(128, "Outputs of the head.", unit="channels", least=1)
    jitter_strength: float = option(
        1.0,
        "Scales the colour jitter; 1 is published for ImageNet, 0.5 for CIFAR-10.",
        unit="factor", least=0,
    )  # fmt: skip


@dataclass
class MoCoV3Options:
    """MoCo v3 (arXiv:2104.02057)."""

    name: str = "moco_v3"
    temperature: float = option(0.2, "Divides the similarities.", above=0)
    hidden_dim: int = option(4096, "Hidden width of both heads.", unit="channels", least=1)
    out_dim: int = option(256, "Outputs of the heads.", unit="channels", least=1)
    momentum: float = option(0.99, "Of the teacher's weights at the start.", least=0, most=1)
    momentum_end: float = option(1.0, "Of the teacher's weights at the end.", least=0, most=1)


@dataclass
class SwAVOptions:
    """SwAV (arXiv:2006.09882)."""

    name: str = "swav"
    temperature: float = option(0.1, "Divides the similarities to prototypes.", above=0)
    hidden_dim: int = option(2048, "Hidden width of the head.", unit="channels", least=1)
    out_dim: int = option(128, "Outputs of the head.", unit="channels", least=1)
    prototypes: int = option(3000, "Prototypes that views are assigned to.", least=2)
    epsilon: float = option(
        0.05, "Smoothness of the assignment; smaller is sharper.", unit="temperature", above=0
    )
    sinkhorn_iterations: int = option(
        3, "Rounds that balance the assignment.", unit="iterations", least=1
    )
    freeze_prototypes_epochs: float = option(
        1, "The prototypes do not learn for this long at the start.", unit="epochs", least=0
    )
    queue_length: int = option(
        0,
        "Earlier images, of all processes, that help to balance a small batch; 0 for none. 3840 is "
        "published for batches of 256.",
        unit="images", least=0,
    )  # fmt: skip
    queue_start_epoch: float = option(
        15, "When the queue is used first, once it is full.", unit="epochs", least=0
    )


@dataclass
class BarlowTwinsOptions:
    """Barlow Twins (arXiv:2103.03230)."""

    name: str = "barlow_twins"
    hidden_dim: int = option(8192, "Hidden width of the head.", unit="channels", least=1)
    out_dim: int = option(8192, "Outputs of the head.", unit="channels", least=1)
    redundancy_weight: float = option(
        0.0051, "Weight of the correlations between channels.", unit="factor", least=0
    )
    scale_loss: float = option(
        1.0,
        "Factor on the loss: 0.024 as published for LARS, 1 for AdamW, which it hardly changes.",
        unit="factor", above=0,
    )  # fmt: skip


@dataclass
class SupervisedOptions:
    """Supervised training, also for fine-tuning. Mixup, cutmix and erasing are timm's."""

    name: str = "supervised"
    num_classes: int | None = option(None, _CLASSES, unit="classes", least=2)
    smoothing: float = option(0.1, "Label smoothing.", least=0, most=1)
    mixup: float = option(0.8, "Alpha of mixup; 0 for none.", unit="alpha", least=0)
    cutmix: float = option(1.0, "Alpha of cutmix; 0 for none.", unit="alpha", least=0)
    erasing: float = option(0.25, "Random erasing.", unit="probability", least=0, most=1)
    rand_augment: str | None = option(
        "rand-m9-mstd0.5-inc1", "Policy of RandAugment; null for none.", form="timm's name of one"
    )
    color_jitter: float = option(
        0.4, "Strength of the colour jitter where there is no RandAugment.",
        unit="strength", least=0,
    )  # fmt: skip
    repeats: int = option(
        3,
        "Repeated augmentation (arXiv:1902.05509): copies of an image in an epoch's list.",
        unit="copies", least=1,
    )  # fmt: skip
    ema: float | None = option(
        None, "Decay of an average of the weights; null keeps none.", least=0, most=1
    )
    freeze_trunk_epochs: float = option(
        0, "Only the classifier learns for this long at the start.", unit="epochs", least=0
    )
    distill_from: str | None = option(
        None,
        "A classifier that teaches by its hard labels.",
        form="a checkpoint with a classifier of the same classes",
    )
    test_every: int | None = option(None, _TEST_EVERY, unit="epochs", least=1)


@dataclass
class LinearOptions:
    """Linear probes of a frozen trunk, one head per learning rate and choice of features."""

    name: str = "linear"
    num_classes: int | None = option(None, _CLASSES, unit="classes", least=2)
    learning_rates: list[float] = option(
        [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1],
        "Learning rates, one head each; scaled by batch / 256.",
        unit="per 256 images", above=0, form="a list of numbers",
    )  # fmt: skip
    holdout: float = option(
        0.1,
        "Share of train that chooses the best head.",
        unit="share of the images", above=0, most=1,
    )  # fmt: skip
    test_every: int | None = option(None, _TEST_EVERY, unit="epochs", least=1)


METHODS: dict[str, type] = {
    "dino": DINOOptions,
    "simclr": SimCLROptions,
    "moco_v3": MoCoV3Options,
    "swav": SwAVOptions,
    "barlow_twins": BarlowTwinsOptions,
    "supervised": SupervisedOptions,
    "linear": LinearOptions,
}
