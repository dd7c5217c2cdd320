"""What a run will take is known before its first step, and what cannot fit is refused."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from convit_ssl.bench.measure import saved_memory
from convit_ssl.cli.main import main
from convit_ssl.engines.memory import estimate as memory
from convit_ssl.engines.memory.heads import head_of
from convit_ssl.engines.memory.room import Room, find_room
from convit_ssl.engines.memory.size import BASE_MIB, gib
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import Plan, make_plan
from convit_ssl.errors import UserError
from convit_ssl.methods import BarlowTwinsHead, DINOHead, MoCoV3Head, SimCLRHead, SwAVHead
from convit_ssl.models import ConViT, create_config

# 8-pixel digits at ImageNet's sizes, in patches of two: what once took a machine down.
HUGE = (
    *("config=convit_dino", "data=digits", "run=cpu", "trunk=convit_nano"),
    *("scale_to_data=false", "trunk.patch_size=2", "optim.batch_size=512"),
)


MIDDLE = ("crops.global_size=32", "trunk.patch_size=4", "run.precision=fp32", "data.workers=1")


def plan(*arguments: str) -> Plan:
    return make_plan(compose_experiment(arguments))


@pytest.mark.parametrize("traced", [False, True])
def test_activations_are_counted_exactly(traced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SMALL", 0 if traced else 10**9)
    config = create_config("convit_nano", img_size=32, num_classes=0)
    model = ConViT(config).train()
    found = saved_memory(model, model, torch.randn(3, 32, 32))
    for images in (1, 7):
        expected = found.per_step + images * found.per_image
        assert memory._activations(config, 32, images, False, False) == pytest.approx(expected)
    with_less = memory._activations(config, 32, 7, False, True)
    assert with_less < 0.5 * expected
    assert memory._activations(config, 32, 7, True, False) < expected


@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("dino", DINOHead, {"out_dim": 128, "hidden_dim": 64, "bottleneck_dim": 16}),
        ("simclr", SimCLRHead, {"out_dim": 32, "hidden_dim": 64}),
        ("moco_v3", MoCoV3Head, {"out_dim": 32, "hidden_dim": 64}),
        ("barlow_twins", BarlowTwinsHead, {"out_dim": 64, "hidden_dim": 64}),
        ("swav", SwAVHead, {"out_dim": 32, "hidden_dim": 64, "prototypes": 100}),
    ],
)
def test_heads_have_the_parameters_of_the_estimate(
    name: str, make: Callable[..., torch.nn.Module], options: dict[str, int]
) -> None:
    given = {"num_prototypes" if k == "prototypes" else k: v for k, v in options.items()}
    actual = sum(p.numel() for p in make(48, **given).parameters() if p.requires_grad)
    found = head_of({"name": name, **options}, 48, 10)
    assert found.parameters == actual


def test_what_takes_less_takes_less() -> None:
    small = ["config=convit_dino", "data=digits", "run=cpu", "trunk=convit_nano"]

    def peak(*more: str) -> float:
        found = memory.estimate(plan(*small, *more))
        assert found is not None
        return found.host + found.workers

    whole = peak("optim.batch_size=512", "data.workers=2")
    assert peak("optim.batch_size=128", "data.workers=2") < whole
    assert peak("optim.batch_size=512", "optim.accumulate=4", "data.workers=2") < whole
    views = ("optim.batch_size=512", "data.workers=2", "crops.local_size=8", "trunk.patch_size=4")
    assert peak(*views, "crops.local_count=2") < peak(*views, "crops.local_count=4")
    assert peak("optim.batch_size=512", "data.workers=1") < whole


def test_what_rounding_and_a_launcher_take_is_counted() -> None:
    """In bf16 a heap that keeps what is freed holds half as much again as is in use."""
    words = ("config=convit_simclr", "data=digits", "run=cpu", "trunk=convit_nano", *MIDDLE)
    exact, rounded = (memory.estimate(plan(*words, *p)) for p in ((), ("run.precision=bf16",)))
    assert exact is not None and rounded is not None
    kept = rounded.parts["activations"] / memory.SLACK_ROUNDED
    assert memory.SLACK_ROUNDED > memory.SLACK
    assert kept < exact.parts["activations"] / memory.SLACK
    several = memory.estimate(plan(*words, "run.processes=2"))
    assert several is not None
    assert several.workers - exact.workers < memory.LAUNCHER_MIB / 2 + 60
    assert 2 * several.workers > memory.LAUNCHER_MIB


def test_workers_of_an_evaluation_are_counted() -> None:
    """They run beside those of training, where images are large enough to be read by workers."""
    words = ("config=convit_simclr", "data=digits", "run=cpu", "trunk=convit_nano",
             "scale_to_data=false", "trunk.patch_size=16", "optim.batch_size=4")  # fmt: skip

    def loading(*more: str) -> float:
        found = memory.estimate(plan(*words, *more))
        assert found is not None
        return found.workers

    large = ("crops.global_size=224", "data.workers=2")
    evaluated, never = (loading(*large, f"watch.every={every}") for every in (1, 0))
    images = 2 * 20 * 3 * 224**2 * 4 / 2**20  # two batches that are ready; float32
    assert evaluated - never == pytest.approx(2 * (memory.WORKER_MIB + images))
    small = ("crops.global_size=64", "data.workers=2")
    assert loading(*small, "watch.every=1") == loading(*small, "watch.every=0")


def test_a_run_of_terabytes_is_refused_at_once() -> None:
    huge = plan(*HUGE)
    found = memory.estimate(huge)
    assert found is not None and found.host > 20 * 1024
    with pytest.raises(UserError, match=r"needs about [\d.]+ GiB of memory.* To save memory: "):
        memory.refuse_what_cannot_fit(huge, found)


def write(root: Path, files: dict[str, Any]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(text))


MACHINE = {
    "proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8192000 kB\nSwapFree: 0 kB\n",
    "proc/self/status": "VmSize: 4096 kB\nVmRSS:\t 1024 kB\n",
}
GIB = 2**30


@pytest.mark.parametrize("limit", ["cgroup", "ulimit"])
def test_a_run_that_needs_20_gib_is_refused_where_16_are_allowed(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, MACHINE | {"proc/meminfo": "MemAvailable: 67108864 kB\n"})
    if limit == "cgroup":
        write(tmp_path, {
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/job/memory.max": 16 * GIB,
            "sys/fs/cgroup/job/memory.current": 0,
        })  # fmt: skip
    else:
        monkeypatch.setattr(resource, "getrlimit", lambda what: (16 * GIB, -1))
    monkeypatch.setattr(memory, "find_room", lambda device: find_room(device, tmp_path))
    words = ["config=convit_simclr", "data=digits", "run=cpu", "trunk=convit_nano",
             "scale_to_data=false", "crops.global_size=32", "trunk.patch_size=2",
             "run.precision=fp32", "data.workers=1"]  # fmt: skip
    large = plan(*words, "optim.batch_size=720")
    found = memory.estimate(large)
    assert found is not None and 20 < found.host / 1024 < 22
    root = f"run.root={tmp_path}/runs"
    assert main(["train", *words, "optim.batch_size=720", root]) != 0
    said = capsys.readouterr().err
    assert re.search(r"training needs about 2[01]\.\d GiB .*16\.0 GiB", said), said
    assert limit in said and "optim.accumulate=2 for the same batch in parts" in said
    assert not list(tmp_path.rglob("*.torch"))
    parts = plan(*words, "optim.batch_size=720", "optim.accumulate=2")
    memory.refuse_what_cannot_fit(parts, memory.estimate(parts))


SMALL_ROOM, LARGER_ROOM = gib(BASE_MIB + 560), gib(BASE_MIB + 1060)


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (Room(BASE_MIB + 560, "free on this machine"), f"{SMALL_ROOM} (free on this machine)"),
        (Room(9e9, "", BASE_MIB + 1060, "ulimit -v"), f"{LARGER_ROOM} (ulimit -v)"),
    ],
)
def test_limits_are_named(room: Room, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "find_room", lambda device: room)
    large = plan(*HUGE[:4], "optim.batch_size=512", *MIDDLE)
    found = memory.estimate(large)
    with pytest.raises(UserError) as caught:
        memory.refuse_what_cannot_fit(large, found)
    message = str(caught.value)
    for word in (words, "optim.batch_size=", "crops.", "trunk.patch_size"):
        assert word in message
    fitting = re.search(r"optim\.batch_size=(\d+)", message)
    assert fitting is not None
    fits = plan(*HUGE[:4], f"optim.batch_size={fitting[1]}", *MIDDLE)
    memory.refuse_what_cannot_fit(fits, memory.estimate(fits))
    monkeypatch.setenv(memory.IGNORE, "1")
    memory.refuse_what_cannot_fit(large, found)


def test_the_machine_and_its_cgroups(tmp_path: Path) -> None:
    write(tmp_path, MACHINE)
    assert find_room("cpu", tmp_path).host_mib == 8001
    v2 = "sys/fs/cgroup/job/step"
    write(tmp_path, {
        "proc/self/cgroup": "0::/job/step\n",
        f"{v2}/memory.max": "max",
        f"{v2}/memory.current": GIB,
        "sys/fs/cgroup/job/memory.max": 3 * GIB,
        "sys/fs/cgroup/job/memory.current": 2 * GIB,
        "sys/fs/cgroup/job/memory.stat": f"anon 1\ninactive_file {GIB}\n",
    })  # fmt: skip
    found = find_room("cpu", tmp_path)
    assert found.host_mib == 2049 and "cgroup" in found.host_limit


def test_cgroups_of_the_first_version(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/memory"
    write(tmp_path, {
        **MACHINE,
        "proc/self/cgroup": "9:cpu,memory:/docker/abc\n0::/\n",
        f"{base}/memory.limit_in_bytes": 4 * GIB,  # the container's own, mounted at the top
        f"{base}/memory.usage_in_bytes": GIB,
        f"{base}/memory.stat": "total_inactive_file 0\n",
    })  # fmt: skip
    assert find_room("cpu", tmp_path).host_mib == 3073
    write(tmp_path, {f"{base}/memory.limit_in_bytes": 9223372036854771712})
    assert find_room("cpu", tmp_path).host_mib == 8001


def test_ulimit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, MACHINE)
    monkeypatch.setattr(resource, "getrlimit", lambda what: (2 * GIB, -1))
    assert find_room("cpu", tmp_path).process_mib == 2048 - 4 + 1


def test_passes_over_val_count_where_labels_are_learned() -> None:
    """They take 256 small images at a time, whatever the batch of a step."""
    words = ("data=digits", "run=cpu", "trunk=convit_nano", *MIDDLE, "optim.batch_size=32")
    labelled = memory.estimate(plan("config=convit_supervised", *words))
    without = memory.estimate(plan("config=convit_simclr", *words))
    assert labelled is not None and without is not None
    assert labelled.parts["tests"] > 0.5 * labelled.parts["activations"]
    assert "tests" not in without.parts
