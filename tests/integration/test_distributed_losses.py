"""Two processes of batch B train as one of 2 B: losses, gradients, centre, collectives.

The file starts itself as two real gloo processes, once for all tests.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from convit_ssl.methods import (
    IBOT,
    BarlowTwinsHead,
    BarlowTwinsLoss,
    DIETLoss,
    DINOHead,
    DINOLoss,
    Distill,
    DistillOptions,
    Hidden,
    IBOTOptions,
    KoLeoLoss,
    LeJEPALoss,
    MoCoV3Head,
    MoCoV3Loss,
    NTXentLoss,
    Progress,
    Run,
    SimCLRHead,
    SwAVHead,
    SwAVLoss,
    SwAVQueue,
    TeacherFeatures,
    VICRegLoss,
)

PROCESSES = 2
BATCH = 3  # images a process
CROPS = 4
WIDTH, OUTPUTS = 5, 11


def simclr(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    return NTXentLoss(0.2)(head(crops[0]), head(crops[1])), None


def moco_v3(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    return MoCoV3Loss(0.2)(head(crops[0]), head(crops[1]), *teacher), None


def swav(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    return SwAVLoss(CROPS)(head(torch.cat(crops))), None


def swav_queue(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    queue = SwAVQueue(7, WIDTH)  # odd: the processes' shares differ
    for shift in (0.1, 0.2):
        assert not queue.full()
        queue.push([crop + shift for crop in crops[:2]])
    assert queue.full()
    assert isinstance(head.weight, Tensor)
    queued = nn.functional.linear(queue.share(), head.weight.detach())
    return SwAVLoss(CROPS)(head(torch.cat(crops)), list(queued)), queue.embeddings


def barlow_twins(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    return BarlowTwinsLoss(0.1)(head(crops[0]), head(crops[1])), None


def vicreg(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    return VICRegLoss()(head(crops[0]), head(crops[1])), None


def diet(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    return DIETLoss()(head(crops[0]), teacher[0].argmax(1)), None


def lejepa(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    return LeJEPALoss(CROPS, directions=6)(head(torch.cat(crops)), step=3)[0], None


def distill(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    options = DistillOptions(teacher="x", teacher_dim=OUTPUTS, patch_weight=0.0, queue_size=4)
    loss = Distill(options, Run(load_teacher=lambda _: nn.Identity()))
    for step, features in enumerate(teacher):  # the second step sees the images of the first
        loss._wanted = TeacherFeatures(features, None)
        found = loss(head(crops[0]), torch.zeros(0))
        loss.on_update(head, Progress(step, 1))
    return found, loss.queue.embeddings


def dino(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    criterion = DINOLoss(OUTPUTS, CROPS)
    for _ in range(2):  # the second step sees the centre of the first
        output = criterion(head(torch.cat(crops)), torch.cat(teacher), 0.3)
    return output.loss, criterion.center


def ibot(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    loss = IBOT(IBOTOptions(out_dim=OUTPUTS), Run(2, CROPS - 2))
    # Of each large crop, a patch that is hidden and one that is not.
    masks = torch.tensor([[True, False]]).expand(2 * len(crops[0]), 2).numpy()
    loss._hidden = Hidden.of(masks, torch.device("cpu"))
    for _ in range(2):  # the second step sees the centres of the first
        loss._targets = torch.cat(teacher)
        loss._patch_outputs = torch.cat((loss._targets + 1, loss._targets.mean(0, keepdim=True)))
        found = loss(
            head(torch.cat((*crops, *(crop + 0.5 for crop in crops[:2])))), target=crops[0]
        )
    return found, torch.cat((loss.dino.center, loss.patches.center))


def koleo(head: nn.Module, crops: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Any]:
    return KoLeoLoss()(head(crops[0])), None


LOSSES = (
    simclr,
    moco_v3,
    swav,
    swav_queue,
    barlow_twins,
    vicreg,
    diet,
    lejepa,
    distill,
    dino,
    ibot,
    koleo,
)
METHODS = {f.__name__: f for f in LOSSES}
# Collectives on each process for one step, backward included.
COLLECTIVES = {
    "simclr": 2, "moco_v3": 2, "swav": 8, "swav_queue": 10, "barlow_twins": 4, "dino": 2,
    "koleo": 2, "vicreg": 4, "diet": 0, "lejepa": 2, "distill": 4, "ibot": 4,
}  # fmt: skip


def run(method: str, images: slice) -> tuple[Tensor, Tensor, Any]:
    """Loss, gradient of a shared head, and the centre, for some of the images."""
    generator = torch.Generator().manual_seed(7)
    total = PROCESSES * BATCH
    crops = [torch.randn(total, WIDTH, generator=generator)[images] for _ in range(CROPS)]
    teacher = [torch.randn(total, OUTPUTS, generator=generator)[images] for _ in range(2)]
    head = nn.Linear(WIDTH, OUTPUTS, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(OUTPUTS, WIDTH, generator=generator) * 0.3)
    loss, center = METHODS[method](head, crops, teacher)
    loss.backward()  # type: ignore[no-untyped-call]
    assert head.weight.grad is not None
    return loss.detach(), head.weight.grad, center


HEADS: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "moco_v3": (lambda: MoCoV3Head(WIDTH, 7, 4), {"views": CROPS}),
    "barlow_twins": (lambda: BarlowTwinsHead(WIDTH, 7, 4), {"views": CROPS}),
    "dino": (lambda: DINOHead(WIDTH, 9, 7, 4, use_bn=True), {}),
    "simclr": (lambda: SimCLRHead(WIDTH, 7, 4), {}),
    "swav": (lambda: SwAVHead(WIDTH, 9, 7, 4), {}),
}


def run_head(name: str, images: slice) -> dict[str, Tensor]:
    """Outputs of some of the images, gradients of all parameters, and buffers of a real head."""
    generator = torch.Generator().manual_seed(3)
    total = PROCESSES * BATCH
    # Views with different means: normalising them together would show.
    crops = [number + torch.randn(total, WIDTH, generator=generator) for number in range(CROPS)]
    torch.manual_seed(5)
    make, options = HEADS[name]
    head = make().double()
    output = head(torch.cat([crop[images] for crop in crops]).double(), **options)
    (output.pow(3).sum() / len(crops[0][images])).backward()
    found = {f"gradient {key}": p.grad for key, p in head.named_parameters() if p.grad is not None}
    buffers = {f"buffer {key}": buffer for key, buffer in head.named_buffers()}
    return {"output": output.detach().unflatten(0, (CROPS, -1)), **found, **buffers}


def centre_when_some_skip(rank: int) -> list[Tensor]:
    """Rank 1 has no images, then fewer, then outputs that are not finite."""
    centers = []
    for outputs in (None, torch.full((1, OUTPUTS), 8.0), torch.full((3, OUTPUTS), torch.nan)):
        criterion = DINOLoss(OUTPUTS, 2, center_momentum=0.5)
        criterion.update_center(torch.ones(3, OUTPUTS) if rank == 0 else outputs)
        centers.append(criterion.center)
    return centers


def process(rank: int, folder: Path) -> None:
    """One of the processes; leaves what it found in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES
    )
    calls = [0]

    def counted(collective: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls[0] += 1
            return collective(*args, **options)

        return call

    all_reduce = dist.all_reduce
    dist.all_reduce = counted(dist.all_reduce)
    dist.all_gather = counted(dist.all_gather)
    found: dict[str, Any] = {}
    for method in METHODS:
        calls[0] = 0
        loss, gradient, center = run(method, slice(rank * BATCH, (rank + 1) * BATCH))
        used = calls[0]
        for tensor in (loss, gradient):  # DistributedDataParallel averages as well
            all_reduce(tensor)
            tensor /= PROCESSES
        found[method] = (loss, gradient, center, used)
    found["heads"] = {
        name: run_head(name, slice(rank * BATCH, (rank + 1) * BATCH)) for name in HEADS
    }
    found["unequal"] = run("barlow_twins", slice(0, 2) if rank == 0 else slice(2, None))
    found["skip"] = centre_when_some_skip(rank)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    root = str(Path(__file__).parents[2])
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        errors = [child.communicate(timeout=120)[1] for child in started]
    finally:
        for child in started:
            child.kill()
    for child, error in zip(started, errors, strict=True):
        assert child.returncode == 0, error
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("method", METHODS)
def test_processes_train_as_one(method: str, found: list[dict[str, Any]]) -> None:
    loss, gradient, center = run(method, slice(None))
    for rank in range(PROCESSES):
        mean_loss, mean_gradient, own_center, collectives = found[rank][method]
        torch.testing.assert_close(mean_loss, loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(mean_gradient, gradient, rtol=1e-4, atol=1e-6)
        assert collectives == COLLECTIVES[method]
        if center is not None:
            torch.testing.assert_close(own_center, center)


@pytest.mark.parametrize("name", HEADS)
def test_heads_normalise_over_all_processes(name: str, found: list[dict[str, Any]]) -> None:
    whole = run_head(name, slice(None))
    parts = [found[rank]["heads"][name] for rank in range(PROCESSES)]
    for key, expected in whole.items():
        if key == "output":
            joined = torch.cat([part[key] for part in parts], dim=1)
        elif key.startswith("gradient"):
            joined = sum(part[key] for part in parts) / PROCESSES
        else:
            joined = parts[1][key]
            assert torch.equal(joined, parts[0][key]), key
        torch.testing.assert_close(joined, expected, rtol=1e-9, atol=1e-9, msg=key)


def test_unequal_batches_of_barlow_twins(found: list[dict[str, Any]]) -> None:
    loss, gradient, _ = run("barlow_twins", slice(None))
    for rank in range(PROCESSES):
        torch.testing.assert_close(found[rank]["unequal"][0], loss, rtol=1e-5, atol=1e-6)
    mean = sum(found[rank]["unequal"][1] for rank in range(PROCESSES)) / PROCESSES
    torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-6)


def test_centre_when_some_processes_skip(found: list[dict[str, Any]]) -> None:
    """The mean over the images there are: 1, (3 x 1 + 8) / 4 and 1, halved by the momentum."""
    for rank in range(PROCESSES):
        values = [center[0, 0].item() for center in found[rank]["skip"]]
        assert values == pytest.approx([0.5, 11 / 8, 0.5])


if __name__ == "__main__":
    process(int(sys.argv[1]), Path(sys.argv[2]))
