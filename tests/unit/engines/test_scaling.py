"""What a run on a processor gets from the data, the network and the cores."""

import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import convit_ssl.adapters  # noqa: F401
from convit_ssl.engines.config import compose_experiment
from convit_ssl.engines.plan import Plan, make_plan
from convit_ssl.engines.scaling import CPU_MINUTES, cpu_seconds, operations
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT, create_config, create_model

NAMES = ("dino", "simclr", "moco_v3", "swav", "barlow_twins")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 files of one 64-pixel image: a plan looks at numbers and sizes alone."""
    root = tmp_path_factory.mktemp("images")
    (root / "train" / "one").mkdir(parents=True)
    first = root / "train" / "one" / "0.png"
    Image.new("RGB", (64, 64), (200, 100, 50)).save(first)
    for number in range(1, 200):
        os.link(first, first.with_name(f"{number}.png"))
    return root


def plan(folder: Path, method: str, *overrides: str) -> Plan:
    common = ("data=folder", f"data_dir={folder}", "trunk=convit_nano", "run=cpu", "run.threads=2")
    return make_plan(compose_experiment([f"config=convit_{method}", *common, *overrides]))


def test_a_processor_gets_a_run_that_ends(folder: Path) -> None:
    two = plan(folder, "simclr", "trunk.embed_dim=512", "trunk.depth=24")
    one = plan(folder, "simclr", "trunk.embed_dim=512", "trunk.depth=24", "run.threads=1")
    assert 10 < one.options["optim"]["epochs"] < two.options["optim"]["epochs"] < 400
    found = re.match(r"about (\d+) minutes", one.choices["epochs"].reason)
    assert found is not None
    assert CPU_MINUTES - 2 <= int(found[1]) <= CPU_MINUTES
    asked = plan(folder, "simclr", "trunk.embed_dim=512", "trunk.depth=24", "optim.epochs=77")
    assert asked.options["optim"]["epochs"] == 77


def test_bf16_makes_room_for_more_epochs(folder: Path) -> None:
    large = ("trunk.embed_dim=512", "trunk.depth=24")
    epochs = [
        plan(folder, "simclr", *large, f"run.precision={name}").options["optim"]["epochs"]
        for name in ("fp32", "bf16")
    ]
    assert epochs[0] < epochs[1]


@pytest.mark.parametrize("method", NAMES)
def test_every_method_can_be_planned(folder: Path, method: str) -> None:
    chosen = plan(folder, method)
    assert chosen.trunk.patch_size == 16
    assert chosen.options["optim"]["epochs"] <= 400


def test_rates_of_another_optimiser_are_left_alone(folder: Path) -> None:
    assert plan(folder, "simclr", "optim.name=lars", "optim.lr=0.3").options["optim"]["lr"] == 0.3
    assert "lr" in plan(folder, "simclr").choices


@pytest.mark.parametrize(("patch", "side"), [(16, 64), (8, 64), (8, 32)])
def test_operations_against_a_count(patch: int, side: int) -> None:
    config = create_config("convit_nano", img_size=side, patch_size=patch, num_classes=0)
    model = ConViT(config).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side, side))
    # Without the class token, and the position attention of the GPSA layers.
    assert operations(config, side) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_seconds_grow_with_the_work() -> None:
    config = create_config("convit_nano", img_size=64, patch_size=16, num_classes=0)
    sizes = {"global_crop_size": 64, "batch_size": 128}
    plain, _ = cpu_seconds(config, "simclr", 4_000, sizes)
    crops = {"local_crop_size": 32, "num_local_crops": 4}
    teacher, looks = cpu_seconds(config, "dino", 4_000, sizes)
    multi, _ = cpu_seconds(config, "dino", 4_000, sizes | crops)
    assert plain < teacher < multi
    assert 15 < plain < 25  # 18 s measured
    assert looks < plain * 10


def test_probes_see_centred_things_whole(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(ConViT(create_config("convit_nano")).state_dict(), weights)

    def crops(*overrides: str) -> list[float]:
        common = ("config=convit_linear", f"weights={weights}", "data=digits", "trunk=convit_nano")
        found = make_plan(compose_experiment([*common, "run=cpu", *overrides])).options
        return list(found["crops"]["global_scale"])

    assert crops() == [1.0, 1.0]
    assert crops("augmentation.min_crop_scale=null") == [0.08, 1.0]
    assert crops("crops.global_scale=[0.5,1]") == [0.5, 1.0]


def digits(config: str, *overrides: str) -> Plan:
    common = ("data=digits", "run=cpu", "run.threads=1", "optim.epochs=3")
    return make_plan(compose_experiment([f"config=convit_{config}", *common, *overrides]))


def test_labels_are_learned_at_a_rate_for_small_batches() -> None:
    """The published one, in proportion to the batch, hardly moves a network: 39 % for 71 %."""
    few = digits("supervised", "trunk=convit_nano", "data.subset='per_class=10,seed=0'")
    assert few.options["derived"]["lr"] == pytest.approx(1e-3, rel=0.05)
    assert "a step" in few.choices["lr"].reason
    many = digits("supervised", "trunk=convit_nano")
    assert many.options["derived"]["lr"] == pytest.approx(1e-3, rel=0.05)
    wide = digits("supervised", "trunk=convit_tiny")
    assert wide.options["derived"]["lr"] == pytest.approx(1e-3 * 128 / 192, rel=0.05)
    given = digits("supervised", "trunk=convit_nano", "optim.lr=3e-4")
    assert given.options["optim"]["lr"] == 3e-4
    sizes = ("crops.global_size=8", "trunk.patch_size=2", "optim.batch_size=64")
    published = digits("supervised", "trunk=convit_nano", "scale_to_data=false", *sizes)
    assert published.options["optim"]["lr"] == 2.5e-4


def test_fine_tuning_has_a_rate_for_small_batches_and_a_probe_its_own(tmp_path: Path) -> None:
    save_trunk(create_model("convit_nano", img_size=8, patch_size=2), tmp_path / "a.safetensors")
    weights = f"weights={tmp_path / 'a.safetensors'}"
    for config in ("finetune", "low_shot"):
        made = digits(config, weights, "data.subset='per_class=10,seed=0'")
        assert made.options["derived"]["lr"] == pytest.approx(2e-3, rel=0.05)
    probe = digits("linear", weights)
    assert (
        probe.options["optim"]["lr"] == compose_experiment(["config=convit_linear"]).tree.optim.lr
    )
    assert "lr" not in probe.choices
