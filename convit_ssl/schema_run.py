"""Options of the optimiser, of where and how a run executes, and of what is watched in it."""

from __future__ import annotations

from dataclasses import dataclass

from convit_ssl.options import option


@dataclass
class OptimOptions:
    """The optimiser and its schedules. Durations in epochs, learning rates per 256 images."""

    name: str = option("adamw", "The optimiser.", choices=("adamw", "sgd", "lars"))
    lr: float = option(
        5e-4,
        "Peak learning rate for a batch of 256 images; scaled linearly to the batch.",
        unit="per 256 images", least=0,
    )  # fmt: skip
    min_lr: float = option(
        1e-6, "Learning rate at the end of the cosine.", unit="absolute", least=0
    )
    warmup_lr: float = option(0.0, "Learning rate of the first step.", unit="absolute", least=0)
    warmup_epochs: float = option(
        10, "Linear growth of the learning rate to its peak.", unit="epochs", least=0
    )
    epochs: int = option(100, "Length of the run.", unit="epochs", least=1)
    batch_size: int = option(
        512, "Images per optimiser step, over all processes.", unit="images", least=1
    )
    accumulate: int = option(
        1,
        "Compute the batch in this many parts to save memory. Loss and gradient stay those of the "
        "whole batch; the trunk's activations take 1/n of the memory, for up to a third more time.",
        unit="parts", least=1,
    )  # fmt: skip
    weight_decay: float = option(0.05, "Weight decay at the start.", least=0)
    weight_decay_end: float | None = option(
        None, "Weight decay at the end of a cosine; null keeps it constant.", least=0
    )
    betas: list[float] = option(
        [0.9, 0.999], "AdamW's two averages.", least=0, most=1, form="[beta1, beta2]", numbers=2
    )
    momentum: float = option(0.9, "Of SGD and LARS.", least=0, most=1)
    clip_grad: float | None = option(
        None, "Largest gradient norm; null does not clip.", unit="gradient norm", above=0
    )
    clip_mode: str = option(
        "parameter",
        "Clip each tensor separately, as DINO does, or all of them together.",
        choices=("parameter", "global"),
    )
    layer_decay: float | None = option(
        None,
        "Multiply the learning rate by this for each layer below the head (fine-tuning).",
        unit="factor", above=0, most=1,
    )  # fmt: skip
    freeze_epochs: float = option(
        0.0,
        "The trunk keeps its starting weights for this long while the head learns, and is then "
        "released; for trunks that start from weights.",
        unit="epochs", least=0,
    )  # fmt: skip
    skip_nan_steps: int = option(
        0,
        "Leave out up to this many steps whose loss is not finite before the run stops; 0 stops at "
        "the first.",
        unit="steps", least=0,
    )  # fmt: skip


@dataclass
class RunOptions:
    """Where and how it runs."""

    launcher: str = option(
        "auto",
        "What starts the processes; auto recognises torchrun and a SLURM step.",
        choices=("auto", "local", "torchrun", "slurm"),
    )
    device: str = option(
        "auto", "auto takes a GPU where there is one.", choices=("auto", "cpu", "cuda")
    )
    nodes: int = option(1, "Number of machines.", unit="machines", least=1)
    processes: int | None = option(
        None,
        "Training processes on each machine; by default one per GPU.",
        unit="processes", least=1,
    )  # fmt: skip
    gpus_per_node: int | None = option(
        None,
        "GPUs that a SLURM job asks for on each machine; 0 on a cluster of CPUs.",
        unit="GPUs",
        least=0,
    )
    precision: str = option(
        "fp32",
        "fp32, bf16 by autocast, fp16 by autocast with loss scaling, or auto: bf16 where the "
        "device multiplies in it, else fp32.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    gradients: str = option(
        "fp32",
        "Format in which processes exchange gradients. bf16 halves the traffic, and rounds each "
        "sum over processes to 8 bits.",
        choices=("fp32", "bf16"),
    )
    fsdp: bool = option(
        False,
        "Shard weights, gradients, optimiser and teacher over the processes (FSDP2), for networks "
        "that do not fit. The losses stay the same.",
    )
    compile: bool = option(False, "Compile the network with torch.compile.")
    grad_checkpointing: bool = option(
        False, "Compute activations again in the backward pass: less memory, a third more time."
    )
    threads: int | None = option(
        None,
        "CPU threads per process. By default MKL_NUM_THREADS or OMP_NUM_THREADS, and without them "
        "the cores that the process may use, or fewer where fewer are faster.",
        unit="threads", least=1,
    )  # fmt: skip
    root: str = option("runs", "Folder that holds the run folders.", form="a path")
    name: str | None = option(
        None, "Name of the run folder; by default EXPERIMENT_DATA_VARIANT.", form="a plain name"
    )
    dir: str | None = option(None, "The run folder; by default <root>/<name>.", form="a path")
    checkpoint_minutes: float = option(
        10.0, "Write a checkpoint at least this often.", unit="minutes", least=0
    )
    keep_checkpoints: int = option(
        2, "How many of the last checkpoints are kept.", unit="checkpoints", least=1
    )
    timeout_minutes: float = option(
        5.0, "A collective operation that takes longer fails.", unit="minutes", above=0
    )
    grace_seconds: float = option(
        90.0,
        "A process that is asked to stop exits within this time, with a checkpoint if a step ends "
        "in it.",
        unit="seconds", least=0,
    )  # fmt: skip
    accept_changes: list[str] = option(
        [],
        "Options that may differ from those the run started with when it is resumed.",
        form="a list of keys, such as [optim.lr,data]",
    )
    deterministic: bool = option(
        False, "Use deterministic algorithms only, for runs that repeat bit by bit; slower."
    )
    overwrite: bool = option(False, "Start over in a folder that contains a run, deleting it.")
    tensorboard: bool = option(True, "Write TensorBoard files to the run folder.")
    wandb: bool = option(False, "Also log to Weights & Biases (needs the wandb package).")
    partition: str | None = option(None, "SLURM partition.", form="a name")
    account: str | None = option(None, "SLURM account.", form="a name")
    constraint: str | None = option(
        None, "SLURM constraint on nodes.", form="a feature, such as a100"
    )
    cpus_per_task: int | None = option(
        None, "CPU cores of each process of a SLURM job.", unit="cores", least=1
    )
    hours: float = option(24.0, "Time limit of a SLURM job.", unit="hours", above=0)
    requeue: int = option(
        10, "How often a SLURM job may fail and restart automatically.", unit="times", least=0
    )


@dataclass
class WatchOptions:
    """What is measured while a run trains."""

    every: int | None = option(
        None,
        "Epochs between two evaluations of the features; 0 for never. By default there are two to "
        "twenty in a run, in under 2 % of its time; where labels are learned, of the heads alone.",
        unit="epochs", least=0,
    )  # fmt: skip
    knn_k: int = option(20, "Neighbours of the online kNN accuracy.", unit="images", least=1)
    knn_images: int | None = option(
        None,
        "Largest number of training images for the online kNN, which then uses all of val. By "
        "default a sample of both, at least 1,000 and 500, in under 2 % of the time.",
        unit="images", least=1,
    )  # fmt: skip
    best_by: str = option(
        "knn",
        "What checkpoints/best.torch is chosen by: kNN accuracy, or, without labels, a label-free "
        "score. A score that has not been shown to rank networks is used with a warning.",
        choices=("knn", "rankme", "lidar", "alpha_req", "two_view", "gate_motion"),
    )
