"""``bench cluster``: what a run asks of a cluster, worked out from measured steps and pipelines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convit_ssl.bench import cluster_checkpoints
from convit_ssl.bench.report import TableOf
from convit_ssl.errors import UserError
from convit_ssl.reading import read_json

FLOAT = 4  # bytes
BACKWARD = 2 / 3  # share of a step during which gradients can travel
NVLINK = 450.0  # GB/s each way between the GPUs of a node (NVIDIA, H100 and H200 data sheets)
JPEG = 110e3  # bytes; ImageNet's train images: 138 GB / 1.28 million
IMAGES = 1_281_167
CHECKPOINT_MINUTES = 10.0  # run.checkpoint_minutes
# Unexpected interruptions in 54 days on 16,384 GPUs: arXiv:2407.21783, table 5.
GPU_HOURS_PER_FAILURE = 16_384 * 54 * 24 / 419
RESTART_MINUTES = 5.0  # back in SLURM's queue, imports, the first step
LARGEST_BATCH = 4096  # SimCLR's and MoCo v3's published one; larger ones have not been shown here
FEWEST_STEPS = 50  # of an epoch
CORES = 128  # of a node with eight GPUs
SLOW = 0.9  # of linear scaling
# Name, and GB/s each way that leave a node of eight GPUs.
NETWORKS = {"8x400G": 8 * 50.0, "100G": 12.5, "10G": 1.25}
COLUMNS = (
    "GPUs", "batch", "steps", "epoch", "GB/s out", *NETWORKS, "cores", "in", "lost %", "breaks"
)  # fmt: skip
NOTES = [
    "Calculated, not measured on a cluster: from the measured step time of one GPU and the "
    "measured loading time per image in one worker. Nothing of this size has been run here.",
    "Steps and time (minutes:seconds) are for one epoch of 1,281,167 images. GB/s out: fp32 "
    "gradients that leave a node, divided by the step time. A ring all-reduce sends 2 (n - 1) "
    "/ n times their size over each link (Patarasuk and Yuan, 2009): by NVLink at 450 GB/s "
    "within a node, by the network between nodes.",
    "8x400G, 100G, 10G: fraction of linear scaling with 400 Gbit/s InfiniBand per GPU, and "
    "with 100 and 10 Gbit/s Ethernet per node. Gradients are sent during the backward pass, "
    "assumed to be two thirds of the step; what does not fit is added to the step, as are "
    "features that a loss gathers from all processes. Latency, congestion and stragglers are "
    "ignored, so these are upper bounds. `run.gradients=bf16` halves the gradient traffic.",
    "Cores: loader cores per node with augment=fast. In: GB/s read by all nodes together, for "
    "JPEGs of 110 kB, as ImageNet's.",
    "Lost, in % of the time: half of the 10 minutes between checkpoints plus 5 minutes to "
    "restart, per failure, at the rate reported for 16,384 GPUs (arXiv:2407.21783: 419 "
    "unexpected interruptions in 54 days). Writing checkpoints is not counted, because a "
    "thread does it.",
    "Breaks: a batch above 4,096, the largest published for these methods; fewer than 50 "
    "steps per epoch; more than 128 loader cores per node; or less than 0.9 of linear scaling "
    "at 100 Gbit/s.",
]


@dataclasses.dataclass(frozen=True)
class Job:
    """A run on one GPU, as it was measured.

    Attributes:
        method, size: of the experiment.
        images: batch of a GPU.
        step: seconds.
        worker: seconds of a loader core for one image.
        gradients: bytes.
        gathered: bytes that a process sends to all others in a step, beside gradients.
        checkpoint: bytes.
    """

    method: str
    size: str
    images: int
    step: float
    worker: float
    gradients: float
    gathered: float
    checkpoint: float


@dataclasses.dataclass(frozen=True)
class Cluster:
    """So many GPUs, in nodes."""

    gpus: int
    per_node: int

    @property
    def nodes(self) -> int:
        """The last one may be part of a node."""
        return -(-self.gpus // self.per_node)


def ring_bytes(size: float, members: int) -> float:
    """What each member of a ring sends for the sum of `size` bytes over all."""
    return 2 * (members - 1) / members * size


def gathered_bytes(size: float, members: int) -> float:
    """What each member receives when all send `size` bytes to all."""
    return (members - 1) * size


def exchange_seconds(job: Job, cluster: Cluster, network: float) -> tuple[float, float]:
    """Time of a step's gradients and of the features that are gathered before them, each alone.

    Args:
        job: its sizes in bytes.
        cluster: how many GPUs, and in which nodes.
        network: GB/s each way that leave a node.
    """
    local, nodes = min(cluster.per_node, cluster.gpus), cluster.nodes
    gradients = ring_bytes(job.gradients, local), ring_bytes(job.gradients, nodes)
    features = gathered_bytes(job.gathered, local), gathered_bytes(job.gathered * local, nodes)
    first, second = (
        within / (NVLINK * 1e9) + between / (network * 1e9)
        for within, between in (gradients, features)
    )
    return first, second


def linear_share(job: Job, cluster: Cluster, network: float) -> float:
    """Speed relative to perfect scaling from one GPU."""
    gradients, features = exchange_seconds(job, cluster, network)
    exposed = max(0.0, gradients - BACKWARD * job.step) + features
    return job.step / (job.step + exposed)


def row(job: Job, cluster: Cluster) -> dict[str, Any]:
    """One line of the table, in bytes, seconds and shares."""
    batch = job.images * cluster.gpus
    local = min(cluster.per_node, cluster.gpus)
    rate = batch / job.step  # images/s if scaling were linear
    shares = {name: linear_share(job, cluster, network) for name, network in NETWORKS.items()}
    per_failure = (CHECKPOINT_MINUTES / 2 + RESTART_MINUTES) / 60
    found = {
        "gpus": cluster.gpus,
        "batch": batch,
        "steps_per_epoch": IMAGES // batch,
        "epoch_seconds": IMAGES / rate,
        "network_bytes_per_second": ring_bytes(job.gradients, cluster.nodes) / job.step,
        "linear_shares": shares,
        "cores_per_node": local * job.images / job.step * job.worker,
        "storage_bytes_per_second": rate * JPEG,
        "lost_to_failures": per_failure * cluster.gpus / GPU_HOURS_PER_FAILURE,
        "checkpoint_bytes": job.checkpoint,
    }
    return {**found, "breaks": list(_breaks(found))}


def _breaks(found: Mapping[str, Any]) -> Iterator[str]:
    if found["batch"] > LARGEST_BATCH:
        yield "batch"
    if found["steps_per_epoch"] < FEWEST_STEPS:
        yield "steps"
    if found["cores_per_node"] > CORES:
        yield "loader"
    if found["linear_shares"]["100G"] < SLOW:
        yield "network"


def jobs(step_file: str, data_file: str, methods: Sequence[str], size: str) -> list[Job]:
    """The runs whose steps and input were measured.

    Args:
        step_file: JSON of ``bench step`` on the GPU in question.
        data_file: JSON of ``bench data``.
        methods: of the steps.
        size: of the network.

    Raises:
        UserError: a file is of another benchmark, or holds no such step.
    """
    steps, inputs = _comparisons(step_file, "step"), _comparisons(data_file, "data")
    found = []
    for method in methods:
        of_it = [
            (comparison["setting"], comparison["rows"][-1])
            for comparison in steps
            if (comparison["setting"]["method"], comparison["setting"]["size"]) == (method, size)
        ]
        if not of_it:
            raise UserError(f"{step_file} has no step of {method}, {size}; run bench step first")
        setting, ours = of_it[-1]
        side, local = setting["global_side"], setting["local_side"]
        crops = f"2 x {side}"
        if method == "dino" and setting["local_crops"]:
            crops += f" + {setting['local_crops']} x {local}"
        seconds = ours["milliseconds"] * setting["batch"] / 1e3
        worker = _worker(inputs, crops, data_file)
        sizes = _sizes(method, size, setting)
        found.append(Job(method, size, setting["batch"], seconds, worker, *sizes))
    return found


def _comparisons(file: str, kind: str) -> list[dict[str, Any]]:
    try:
        content = read_json(file)
    except UserError as error:
        raise UserError(f"{file} is not JSON of bench {kind}: {error}") from error
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise UserError(f"{file} is not a result of bench {kind} (--json FILE)")
    comparisons: Any = content.get("comparisons")
    whole = isinstance(comparisons, list) and all(
        isinstance(each, dict) and isinstance(each.get("rows"), list) and each["rows"]
        for each in comparisons
    )
    if not whole:
        raise UserError(f"{file} is damaged: it has no list of comparisons with rows")
    return list(comparisons)


def _worker(inputs: Sequence[Mapping[str, Any]], crops: str, file: str) -> float:
    for line in (line for comparison in inputs for line in comparison["rows"]):
        if (line["crops"], line["pipeline"]) == (crops, "fast"):
            return float(line["milliseconds"]) / 1e3
    raise UserError(f"{file} holds no row of {crops} px with augment=fast")


def _sizes(method: str, size: str, setting: Mapping[str, Any]) -> tuple[float, float, float]:
    """Bytes of gradients, of features that are gathered, and of a checkpoint."""
    import torch

    from convit_ssl.bench.contenders import size_config
    from convit_ssl.engines.memory.heads import head_of
    from convit_ssl.models import ConViT

    options = {"name": method, **({"out_dim": setting["out_dim"]} if method == "dino" else {})}
    config = size_config(size, setting["global_side"])
    head = head_of(options, config.embed_dim, 1000)
    with torch.device("meta"):
        trunk = sum(p.numel() for p in ConViT(config).parameters())
    weights = (trunk + head.parameters) * FLOAT
    copies = 3 + head.teacher  # weights, two moments of AdamW, a teacher
    gathered = 2 * setting["batch"] * head.logits * FLOAT if head.pairs else 0
    return float(weights), float(gathered), float(weights * copies)


def work_out(found: Sequence[Job], gpus: Sequence[int], per_node: int) -> list[dict[str, Any]]:
    """One comparison for each job."""
    return [
        {
            "setting": {**dataclasses.asdict(job), "gpus_per_node": per_node},
            "rows": [row(job, Cluster(count, per_node)) for count in gpus],
            "checkpoints": [cluster_checkpoints.simulate(job.checkpoint, count) for count in gpus],
            "breaking_gpus": cluster_checkpoints.breaking_gpus(job.checkpoint),
        }
        for job in found
    ]


def table(comparison: Mapping[str, Any]) -> TableOf:
    """The lines of one job."""
    job = comparison["setting"]
    title = (
        f"{job['method']}, {job['size']}: {job['images']} images a GPU in "
        f"{1e3 * job['step']:.0f} ms, gradients of {job['gradients'] / 1e6:,.0f} MB, checkpoint of "
        f"{job['checkpoint'] / 1e9:.1f} GB"
    )
    return title, COLUMNS, [_cells(line) for line in comparison["rows"]]


def _cells(line: Mapping[str, Any]) -> list[str]:
    minutes, seconds = divmod(round(line["epoch_seconds"]), 60)
    return [
        f"{line['gpus']:,}",
        f"{line['batch']}",
        f"{line['steps_per_epoch']:,}",
        f"{minutes}:{seconds:02d}",
        f"{line['network_bytes_per_second'] / 1e9:.1f}",
        *(f"{share:.2f}" for share in line["linear_shares"].values()),
        f"{line['cores_per_node']:.0f}",
        f"{line['storage_bytes_per_second'] / 1e9:.1f}",
        f"{100 * line['lost_to_failures']:.2f}",
        ", ".join(line["breaks"]) or "no",
    ]
