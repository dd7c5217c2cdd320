"""Every option of an experiment, with its type, unit and default.

The YAML files under configs/ change these; a key that is not here stops the run. Options that
are None are set from the data (`scale_to_data`), from the machine, or by the chosen variant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass
class DataOptions:
    """Which images.

    Attributes:
        name: digits, mnist5k, fashion_mnist, imagenet or folder.
        subset: labelled subset, as `convit-ssl subset` writes it: "fraction=0.1,seed=0",
            "per_class=10", "list=FILE", "classes=first:100".
        max_corrupt: share of unreadable images that stops the run.
        workers: loader processes per training process; None for what the machine allows.
    """

    name: str = "imagenet"
    subset: Optional[str] = None
    max_corrupt: float = 0.01
    workers: Optional[int] = None


@dataclass
class TrunkOptions:
    """The network: a variant of `convit_ssl.models`, and changes to it (None: the variant's)."""

    variant: str = "convit_small"
    patch_size: Optional[int] = None
    in_chans: int = 3
    embed_dim: Optional[int] = None
    depth: Optional[int] = None
    num_heads: Optional[int] = None
    num_gpsa_layers: Optional[int] = None
    locality_strength: Optional[float] = None
    mlp_ratio: Optional[float] = None
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    local_init: bool = True
    use_gating: bool = True
    global_pool: str = "token"
    freeze_patch_embed: bool = False
    freeze_position: bool = False


@dataclass
class CropOptions:
    """Views of each image.

    Attributes:
        global_count, global_size, global_scale: how many large crops, their side in pixels and
            the range of their area as a share of the image.
        local_count, local_size, local_scale: the same for DINO's small crops.
    """

    global_count: int = 2
    global_size: int = 224
    global_scale: list[float] = field(default_factory=lambda: [0.4, 1.0])
    local_count: int = 0
    local_size: int = 96
    local_scale: list[float] = field(default_factory=lambda: [0.05, 0.4])


@dataclass
class AugmentationOptions:
    """Changes to the views that a method is published with; None leaves them.

    Attributes:
        horizontal_flip, vertical_flip: probabilities; 0 for digits and letters.
        rotate90: turn by quarters, for images without an upper side.
        blur_sigma: smallest and largest standard deviation in pixels.
    """

    horizontal_flip: Optional[float] = None
    vertical_flip: Optional[float] = None
    rotate90: Optional[bool] = None
    blur_sigma: Optional[list[float]] = None


@dataclass
class OptimOptions:
    """The optimiser and its schedules. Durations in epochs, learning rate per 256 images.

    Attributes:
        name: adamw, sgd or lars.
        lr: learning rate for a batch of 256; scaled linearly to the batch.
        min_lr, warmup_lr: absolute values at the end and the start.
        batch_size: images per step over all processes.
        accumulate: parts in which each process computes its share of the batch.
        weight_decay, weight_decay_end: start and end of a cosine (None: constant).
        clip_grad: largest gradient norm; None leaves gradients alone.
        clip_mode: "parameter" clips each tensor by itself, as DINO; "global" all together.
        layer_decay: factor on the learning rate per layer below the head.
        skip_nan_steps: steps with a loss that is not finite that are left out before the run
            stops; 0 stops at the first.
    """

    name: str = "adamw"
    lr: float = 5e-4
    min_lr: float = 1e-6
    warmup_lr: float = 0.0
    warmup_epochs: float = 10
    epochs: int = 100
    batch_size: int = 512
    accumulate: int = 1
    weight_decay: float = 0.05
    weight_decay_end: Optional[float] = None
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    momentum: float = 0.9
    clip_grad: Optional[float] = None
    clip_mode: str = "parameter"
    layer_decay: Optional[float] = None
    skip_nan_steps: int = 0


@dataclass
class RunOptions:
    """Where and how it runs.

    Attributes:
        launcher: auto, local, torchrun or slurm.
        device: auto, cpu or cuda.
        nodes, processes: machines, and training processes on each (None: one per GPU).
        precision: fp32, bf16 (autocast) or fp16 (autocast with loss scaling).
        threads: CPU threads per process; None shares the cores out.
        dir: run folder; None gives <root>/<name>.
        checkpoint_minutes: at most so much work is lost.
        keep_checkpoints: how many of the last are kept.
        timeout_minutes: a collective that takes longer fails.
        grace_seconds: a process that is asked to stop leaves within this time, with a
            checkpoint if a step ends in it.
        accept_changes: options that may differ from those the run began with.
        overwrite: start afresh in a folder that holds a run.
        partition, account, constraint, cpus_per_task, hours: of the SLURM job.
        requeue: how often a SLURM job may fail and start again by itself.
    """

    launcher: str = "auto"
    device: str = "auto"
    nodes: int = 1
    processes: Optional[int] = None
    gpus_per_node: Optional[int] = None
    precision: str = "fp32"
    compile: bool = False
    grad_checkpointing: bool = False
    threads: Optional[int] = None
    root: str = "runs"
    name: Optional[str] = None
    dir: Optional[str] = None
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    timeout_minutes: float = 5.0
    grace_seconds: float = 90.0
    accept_changes: list[str] = field(default_factory=list)
    deterministic: bool = False
    overwrite: bool = False
    tensorboard: bool = True
    wandb: bool = False
    partition: Optional[str] = None
    account: Optional[str] = None
    constraint: Optional[str] = None
    cpus_per_task: Optional[int] = None
    hours: float = 24.0
    requeue: int = 10


@dataclass
class WatchOptions:
    """What is looked at while it trains.

    Attributes:
        every: epochs between two looks; 0 for never, None for twenty looks in a run.
        knn_k: neighbours of the online kNN accuracy.
        knn_images: training images it is computed from, at most.
    """

    every: Optional[int] = None
    knn_k: int = 20
    knn_images: int = 20000


@dataclass
class Experiment:
    """One experiment, as the engine sees it."""

    experiment: str = "???"
    data_dir: Optional[str] = None
    augment: str = "fast"
    scale_to_data: bool = True
    weights: Optional[str] = None
    weights_from: str = "teacher"
    seed: int = 0
    data: DataOptions = field(default_factory=DataOptions)
    trunk: TrunkOptions = field(default_factory=TrunkOptions)
    crops: CropOptions = field(default_factory=CropOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    method: Any = None
    optim: OptimOptions = field(default_factory=OptimOptions)
    run: RunOptions = field(default_factory=RunOptions)
    watch: WatchOptions = field(default_factory=WatchOptions)


@dataclass
class DINOOptions:
    """DINO (arXiv:2104.14294). Temperatures and momenta as published for ViT-S/16."""

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


@dataclass
class SimCLROptions:
    """SimCLR (arXiv:2002.05709) with a ViT; protocol of MoCo v3 (arXiv:2104.02057)."""

    name: str = "simclr"
    temperature: float = 0.2
    hidden_dim: int = 3072
    out_dim: int = 128


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
    """SwAV (arXiv:2006.09882)."""

    name: str = "swav"
    temperature: float = 0.1
    hidden_dim: int = 2048
    out_dim: int = 128
    prototypes: int = 3000
    epsilon: float = 0.05
    sinkhorn_iterations: int = 3
    freeze_prototypes_epochs: float = 1


@dataclass
class BarlowTwinsOptions:
    """Barlow Twins (arXiv:2103.03230)."""

    name: str = "barlow_twins"
    hidden_dim: int = 8192
    out_dim: int = 8192
    redundancy_weight: float = 0.0051


@dataclass
class SupervisedOptions:
    """Supervised training, also for fine-tuning. Mixup, cutmix and erasing are timm's.

    Attributes:
        num_classes: None takes it from the data.
        repeats: repeated augmentation (arXiv:1902.05509), copies of an image per epoch's list.
        ema: decay of an average of the weights; None keeps none.
        freeze_trunk_epochs: epochs in which only the classifier learns.
        distill_from: a checkpoint of a classifier that teaches by its hard labels.
    """

    name: str = "supervised"
    num_classes: Optional[int] = None
    smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    erasing: float = 0.25
    rand_augment: Optional[str] = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    repeats: int = 3
    ema: Optional[float] = None
    freeze_trunk_epochs: float = 0
    distill_from: Optional[str] = None


@dataclass
class LinearOptions:
    """Linear probes of a frozen trunk, one head per learning rate and choice of features.

    Attributes:
        learning_rates: absolute, each scaled by batch / 256.
        holdout: share of train on which the best head is chosen.
    """

    name: str = "linear"
    num_classes: Optional[int] = None
    learning_rates: list[float] = field(
        default_factory=lambda: [
            1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1,
        ]
    )  # fmt: skip
    holdout: float = 0.1


METHODS: dict[str, type] = {
    "dino": DINOOptions,
    "simclr": SimCLROptions,
    "moco_v3": MoCoV3Options,
    "swav": SwAVOptions,
    "barlow_twins": BarlowTwinsOptions,
    "supervised": SupervisedOptions,
    "linear": LinearOptions,
}
