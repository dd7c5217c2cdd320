"""Options of the optimiser, of where and how a run executes, and of what is watched in it."""

from __future__ import annotations

from dataclasses import dataclass

from convit_ssl.options import option


@dataclass
class OptimOptions:
    """The optimiser and its schedules. Durations in epochs, learning rates per 256 images."""

    name: str = option(
        "adamw",
        "The optimiser. muon orthogonalises the steps of the blocks' matrices and leaves the rest "
        "to AdamW.",
        choices=("adamw", "muon", "sgd", "lars"),
    )
    lr: float = option(
        5e-4,
        "Peak learning rate for a batch of 256 images; scaled linearly to the batch.",
        unit="per 256 images", least=0,
    )  # fmt: skip
    min_lr: float = option(
        1e-6, "Learning rate at the end of the cosine schedule.", unit="absolute", least=0
    )
    warmup_lr: float = option(0.0, "Learning rate at the first step.", unit="absolute", least=0)
    warmup_epochs: float = option(
        10, "Length of the linear warm-up of the learning rate.", unit="epochs", least=0
    )
    epochs: int = option(100, "Length of the run.", unit="epochs", least=1)
    batch_size: int = option(
        512, "Images per optimiser step, summed over all processes.", unit="images", least=1
    )
    accumulate: int = option(
        1,
        "Compute the batch in this many parts to save memory. Loss and gradient stay those of the "
        "whole batch; the trunk's activations take 1/n of the memory, for up to a third more time.",
        unit="parts", least=1,
    )  # fmt: skip
    weight_decay: float = option(0.05, "Weight decay at the start.", least=0)
    weight_decay_end: float | None = option(
        None, "Weight decay at the end of its cosine schedule; null keeps it constant.", least=0
    )
    betas: list[float] = option(
        [0.9, 0.999],
        "Betas of AdamW, also for the parameters that Muon leaves to it.",
        least=0,
        most=1,
        form="[beta1, beta2]",
        numbers=2,
    )
    momentum: float = option(0.9, "Momentum of SGD and LARS.", least=0, most=1)
    clip_grad: float | None = option(
        None, "Clip gradients to this norm; null does not clip.", unit="gradient norm", above=0
    )
    clip_mode: str = option(
        "parameter",
        "Clip the gradient of each tensor separately, as DINO does, or all of them together.",
        choices=("parameter", "global"),
    )
    layer_decay: float | None = option(
        None,
        "Layer-wise learning rate decay: the rate is multiplied by this for each layer below the "
        "head (fine-tuning).",
        unit="factor", above=0, most=1,
    )  # fmt: skip
    freeze_epochs: float = option(
        0.0,
        "Freeze the trunk for this long at the start, while the head learns; for trunks that start "
        "from pretrained weights.",
        unit="epochs", least=0,
    )  # fmt: skip
    skip_nan_steps: int = option(
        0,
        "Skip up to this many steps whose loss is not finite before the run stops; 0 stops at the "
        "first.",
        unit="steps", least=0,
    )  # fmt: skip


@dataclass
class RunOptions:
    """Where and how it runs."""

    launcher: str = option(
        "auto",
        "What starts the processes; auto detects torchrun and SLURM steps.",
        choices=("auto", "local", "torchrun", "slurm"),
    )
    device: str = option(
        "auto", "Device; auto uses a GPU if there is one.", choices=("auto", "cpu", "cuda")
    )
    nodes: int = option(1, "Number of machines.", unit="machines", least=1)
    processes: int | None = option(
        None,
        "Training processes on each machine; by default one per GPU.",
        unit="processes", least=1,
    )  # fmt: skip
    gpus_per_node: int | None = option(
        None,
        "GPUs that a SLURM job requests on each machine; 0 on a CPU cluster.",
        unit="GPUs",
        least=0,
    )
    precision: str = option(
        "fp32",
        "fp32, bf16 by autocast, fp16 by autocast with loss scaling, or auto: bf16 if the hardware "
        "supports it, else fp32.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    gradients: str = option(
        "fp32",
        "Data type in which processes exchange gradients. bf16 halves the traffic and rounds each "
        "sum over processes to 8 bits of precision.",
        choices=("fp32", "bf16"),
    )
    fsdp: bool = option(
        False,
        "Shard weights, gradients, optimiser state and teacher over the processes (FSDP2), for "
        "networks that do not fit on one device. Losses do not change.",
    )
    compile: bool = option(False, "Compile the network with torch.compile.")
    grad_checkpointing: bool = option(
        False, "Recompute activations in the backward pass: less memory, a third more time."
    )
    threads: int | None = option(
        None,
        "CPU threads per process. Default: MKL_NUM_THREADS or OMP_NUM_THREADS; without them, as "
        "many as the cores the process may use, or fewer if that is faster.",
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
        2, "Number of most recent checkpoints to keep.", unit="checkpoints", least=1
    )
    timeout_minutes: float = option(
        5.0, "Time-out of collective operations.", unit="minutes", above=0
    )
    grace_seconds: float = option(
        90.0,
        "Time in which a process that is told to stop exits; it writes a checkpoint if its step "
        "ends in time.",
        unit="seconds", least=0,
    )  # fmt: skip
    accept_changes: list[str] = option(
        [],
        "Options that may differ from those the run was started with when it resumes.",
        form="a list of keys, such as [optim.lr,data]",
    )
    deterministic: bool = option(
        False,
        "Use only deterministic algorithms, so that runs are bit-for-bit reproducible; slower.",
    )
    overwrite: bool = option(False, "Delete the run that is in the folder and start over.")
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
        10, "How often a failed SLURM job is restarted automatically.", unit="times", least=0
    )


@dataclass
class WatchOptions:
    """What is measured while a run trains."""

    every: int | None = option(
        None,
        "Epochs between evaluations of the features; 0 for never. By default a run has two to "
        "twenty, in under 2 % of its time. In supervised runs only the heads are watched.",
        unit="epochs", least=0,
    )  # fmt: skip
    knn_k: int = option(20, "Number of neighbours of the online kNN.", unit="images", least=1)
    knn_images: int | None = option(
        None,
        "Largest number of training images for the online kNN, which then uses all of val. By "
        "default it uses samples of both, of at least 1,000 and 500 images, in under 2 % of the "
        "time.",
        unit="images", least=1,
    )  # fmt: skip
    best_by: str = option(
        "knn",
        "Score that selects checkpoints/best.torch: kNN accuracy, or a label-free score, with a "
        "warning if that score has not been shown to rank networks.",
        choices=("knn", "rankme", "lidar", "alpha_req", "two_view", "gate_motion"),
    )
