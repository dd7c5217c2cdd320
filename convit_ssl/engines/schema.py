"""Every option of an experiment, with its type, unit and default.

The YAML files under configs/ change these; a key that is not here stops the run. Options that
are None are set from the data (`scale_to_data`), from the machine, or by the chosen variant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DataOptions:
    """Which images.

    Attributes:
        name: digits, mnist5k, fashion_mnist, textures, elpv, openclipart, imagenet, folder, list
            or shards.
        holdout: share of the images that is held out and tested at the end, such as 0.2; nothing
            is learned from it or chosen by it. No val folder is needed then.
        folds, fold: a k-fold instead, and which of its parts is the test.
        group_by: what stays together: folder:1, column:NAME (of `labels`) or name:REGEX.
        labels: table.csv:file,label,... (or .parquet), folder:N, or name:REGEX; None for class
            folders.
        split: a division that was written down (split.csv), in place of `holdout` and `folds`.
        split_seed: of the division; None is 0.
        subset: labelled subset, as `convit-ssl subset` writes it: "fraction=0.1,seed=0",
            "per_class=10", "list=FILE", "classes=first:100".
        max_corrupt: share of unreadable images that stops the run.
        white_level: of unsigned integers of more than 8 bits, what becomes white; None for what
            the weights that a run starts from were made with, or what fits all training images.
        signed_range: of signed integers (CT, elevation), [black, white]; None as above.
        float_range: of floating point, [black, white]; None as above.
        exif_rotation: whether photographs are turned upright as their EXIF entry says. Off, as in
            torchvision's ImageFolder and timm.
        workers: loader processes per training process; None for what the machine allows.
    """

    name: str = "imagenet"
    subset: str | None = None
    holdout: float | None = None
    folds: int | None = None
    fold: int | None = None
    group_by: str | None = None
    labels: str | None = None
    split: str | None = None
    split_seed: int | None = None
    max_corrupt: float = 0.01
    white_level: int | None = None
    signed_range: list[float] | None = None
    float_range: list[float] | None = None
    exif_rotation: bool = False
    workers: int | None = None


@dataclass
class TrunkOptions:
    """The network: a variant of `convit_ssl.models`, and changes to it (None: the variant's)."""

    variant: str = "convit_small"
    patch_size: int | None = None
    in_chans: int = 3
    embed_dim: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    num_gpsa_layers: int | None = None
    locality_strength: float | None = None
    pos_embed_std: float | None = None
    mlp_ratio: float | None = None
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
        solarize: probability in the second crop of DINO, MoCo v3 and Barlow Twins; 0 for strokes
            on an empty ground, which
            are lost when bright pixels are inverted.
        min_crop_scale: share of the image's area that a global crop shows at least, for things
            that fill the image and are told apart by their whole shape. Linear probes then see
            whole images, unless ``crops.global_scale`` is given.
        blur_sigma: smallest and largest standard deviation in pixels.
    """

    horizontal_flip: float | None = None
    vertical_flip: float | None = None
    rotate90: bool | None = None
    solarize: float | None = None
    min_crop_scale: float | None = None
    blur_sigma: list[float] | None = None


@dataclass
class OptimOptions:
    """The optimiser and its schedules. Durations in epochs, learning rate per 256 images.

    Attributes:
        name: adamw, sgd or lars.
        lr: learning rate for a batch of 256; scaled linearly to the batch.
        min_lr, warmup_lr: absolute values at the end and the start.
        batch_size: images per step over all processes.
        accumulate: parts in which each process computes its share of the batch. Loss and gradient
            stay those of the whole batch; the trunk's activations take 1/n of the memory, for up
            to a third more time.
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
    weight_decay_end: float | None = None
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    momentum: float = 0.9
    clip_grad: float | None = None
    clip_mode: str = "parameter"
    layer_decay: float | None = None
    skip_nan_steps: int = 0


@dataclass
class RunOptions:
    """Where and how it runs.

    Attributes:
        launcher: auto, local, torchrun or slurm.
        device: auto, cpu or cuda.
        nodes, processes: machines, and training processes on each (None: one per GPU).
        precision: fp32, bf16 (autocast), fp16 (autocast with loss scaling), or auto: bf16 where
            the device multiplies in it, else fp32.
        gradients: fp32 or bf16: in what processes exchange them; bf16 is half the traffic, and
            each sum over processes is rounded to 8 bits.
        fsdp: share weights, gradients, optimiser and teacher out over the processes (FSDP2), for
            networks that do not fit; the losses are the same.
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
    processes: int | None = None
    gpus_per_node: int | None = None
    precision: str = "fp32"
    gradients: str = "fp32"
    fsdp: bool = False
    compile: bool = False
    grad_checkpointing: bool = False
    threads: int | None = None
    root: str = "runs"
    name: str | None = None
    dir: str | None = None
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    timeout_minutes: float = 5.0
    grace_seconds: float = 90.0
    accept_changes: list[str] = field(default_factory=list)
    deterministic: bool = False
    overwrite: bool = False
    tensorboard: bool = True
    wandb: bool = False
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    cpus_per_task: int | None = None
    hours: float = 24.0
    requeue: int = 10


@dataclass
class WatchOptions:
    """What is looked at while it trains.

    Attributes:
        every: epochs between two looks; 0 for never, None for two to twenty looks in a run, under
            2 % of its time; where labels are learned they are at the heads alone.
        knn_k: neighbours of the online kNN accuracy.
        knn_images: training images it is computed from, at most, and with it all of val; None for
            a sample of both, 1,000 and 500 or more, such that looks take under 2 % of the time.
    """

    every: int | None = None
    knn_k: int = 20
    knn_images: int | None = None


@dataclass
class Experiment:
    """One experiment, as the engine sees it.

    Attributes:
        plugins: modules with methods, data sets, augmentations or trunks of the user's own.
    """

    experiment: str = "???"
    plugins: list[str] = field(default_factory=list)
    data_dir: str | None = None
    augment: str = "fast"
    scale_to_data: bool = True
    weights: str | None = None
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
