"""What a run on a processor gets from the data, the network and the cores."""

import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import convit_ssl.adapters  # noqa: F401
from convit_ssl.engines.checkpoints.files import CHECKPOINTS, checkpoint_name
from convit_ssl.engines.options import scaling
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.first_start import find_begun
from convit_ssl.engines.options.plan import Plan, make_plan
from convit_ssl.engines.options.scaling import (
    CPU_MINUTES,
    cpu_seconds,
    muon_operations,
    operations,
)
from convit_ssl.engines.options.write import write_config
from convit_ssl.export.save import save_trunk
from convit_ssl.methods import get_method
from convit_ssl.methods import scale as scale_rules
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


def test_large_images_get_small_crops_where_large_ones_leave_few_epochs(tmp_path: Path) -> None:
    first = tmp_path / "train" / "one" / "0.png"
    first.parent.mkdir(parents=True)
    Image.new("RGB", (336, 333), (200, 100, 50)).save(first)
    for number in range(1, 1000):
        os.link(first, first.with_name(f"{number}.png"))
    found = plan(tmp_path, "simclr", "run.threads=1")
    crop = found.options["crops"]["global_size"]
    assert crop in (96, 128)  # of processors that are faster in bf16, the larger one
    assert found.options["optim"]["epochs"] >= 100
    assert f"at most {crop} on a processor" in found.choices["global_crop_size"].reason
    again = plan(tmp_path, "simclr", "run.threads=1", "crops.global_size=224")
    assert again.options["crops"]["global_size"] == 224
    assert again.options["optim"]["epochs"] < 40
    wide = plan(tmp_path, "simclr", "run.threads=1", "trunk.embed_dim=512", "trunk.depth=24")
    assert wide.options["crops"]["global_size"] == 64  # the smallest, if none leaves enough


def test_one_view_of_an_image_costs_half_of_two() -> None:
    network = create_config("convit_nano", img_size=64, num_classes=0)
    sizes = {"global_crop_size": 64, "batch_size": 10**9}
    (one, _), (two, _) = (
        cpu_seconds(network, get_method(name), 1000, sizes) for name in ("diet", "simclr")
    )
    assert two == pytest.approx(2 * one)


def begin(plan: Plan) -> None:
    """As a run leaves its folder: the configuration, and a checkpoint that a plan does not read."""
    write_config(plan)
    folder = Path(plan.options["run"]["dir"]) / CHECKPOINTS
    folder.mkdir()
    (folder / checkpoint_name(1, 10)).touch()


def test_a_run_goes_on_with_what_it_began_with(folder: Path, tmp_path: Path) -> None:
    """Another machine allows other epochs, and would have been refused by the checkpoint."""
    large = ("trunk.embed_dim=512", "trunk.depth=24", f"run.dir={tmp_path / 'run'}")
    first = plan(folder, "simclr", *large)
    alone = plan(folder, "simclr", *large, "run.threads=1")
    assert alone.options["optim"]["epochs"] < first.options["optim"]["epochs"]
    begin(first)
    again = plan(folder, "simclr", *large, "run.threads=1")
    assert again.options["optim"] == first.options["optim"]
    assert again.trunk == first.trunk
    assert again.choices["epochs"] == first.choices["epochs"]
    assert (
        plan(folder, "simclr", *large, "run.threads=1", "run.overwrite=true").options["optim"]
        == (alone.options["optim"])
    )


def test_a_run_without_a_limit_keeps_none(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that began on a GPU and goes on on a processor."""
    large = ("trunk.embed_dim=512", "trunk.depth=24", f"run.dir={tmp_path / 'run'}")
    with monkeypatch.context() as patch:
        patch.setattr(scaling, "_budget", lambda *given: None)
        first = plan(folder, "simclr", *large)
    assert first.options["optim"]["epochs"] == 400
    begin(first)
    again = plan(folder, "simclr", *large)
    assert again.options["optim"] == first.options["optim"]
    assert again.trunk == first.trunk


@pytest.mark.parametrize(
    "text", ["", "derived: [", "derived: {}", "derived: {budget: {epochs: 3}}"]
)
def test_a_folder_that_does_not_tell_what_it_began_with(tmp_path: Path, text: str) -> None:
    assert find_begun(tmp_path, 200) is None
    (tmp_path / CHECKPOINTS).mkdir()
    (tmp_path / CHECKPOINTS / checkpoint_name(1, 10)).touch()
    assert find_begun(tmp_path, 200) is None
    (tmp_path / "config.yaml").write_text(text)
    assert find_begun(tmp_path, 200) is None


def test_other_images_begin_anew(folder: Path, tmp_path: Path) -> None:
    begin(plan(folder, "simclr", f"run.dir={tmp_path / 'run'}"))
    assert find_begun(tmp_path / "run", 200) is not None
    assert find_begun(tmp_path / "run", 199) is None


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


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "muon"),
        (("optim=adamw",), "adamw"),
        (("optim.name=adamw",), "adamw"),
        (("optim=sgd",), "sgd"),
        (("optim.name=lars",), "lars"),
        (("trunk=resnet50",), "adamw"),
        (("scale_to_data=false",), "adamw"),
    ],
)
def test_an_optimiser_that_was_asked_for_stays(words: tuple[str, ...], name: str) -> None:
    small = ("config=convit_simclr", "data=digits", "run=cpu", "optim.batch_size=128")
    trunk = () if "trunk=resnet50" in words else ("trunk=convit_nano", "trunk.patch_size=1")
    plan = make_plan(compose_experiment([*small, *trunk, *words]))
    assert plan.options["optim"]["name"] == name


def test_operations_of_muon_are_those_that_torch_counts() -> None:
    from convit_ssl.adapters.muon import MuonAndAdamW
    from convit_ssl.adapters.optimizers import MATRICES, orthogonalised

    config = create_config("convit_nano", img_size=16, patch_size=4, num_classes=0)
    named = [(f"trunk.{name}", p) for name, p in ConViT(config).named_parameters()]
    matrices = [p for name, p in named if orthogonalised(name, p)]
    group = {"params": matrices, "lr": 1e-3, "weight_decay": 0.1, MATRICES: True}
    optimizer = MuonAndAdamW([group], betas=(0.9, 0.95))
    for parameter in matrices:
        parameter.grad = torch.randn_like(parameter)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    assert muon_operations(config) == pytest.approx(counter.get_total_flops(), rel=0.1)
    sizes = {"global_crop_size": 64, "batch_size": 16}
    plain, _ = cpu_seconds(config, get_method("simclr"), 160, sizes, flops=1e9)
    more, _ = cpu_seconds(config, get_method("simclr"), 160, sizes, flops=1e9, muon=True)
    assert more - plain == pytest.approx(10 * muon_operations(config) / 1e9)


def test_seconds_grow_with_the_work() -> None:
    config = create_config("convit_nano", img_size=64, patch_size=16, num_classes=0)
    sizes = {"global_crop_size": 64, "batch_size": 128}
    plain, _ = cpu_seconds(config, get_method("simclr"), 4_000, sizes)
    crops = {"local_crop_size": 32, "num_local_crops": 4}
    teacher, looks = cpu_seconds(config, get_method("dino"), 4_000, sizes)
    multi, _ = cpu_seconds(config, get_method("dino"), 4_000, sizes | crops)
    assert plain < teacher < multi
    assert 15 < plain < 25  # 18 s measured
    assert looks < plain * 10


def test_labels_take_one_view_and_a_frozen_trunk_one_pass() -> None:
    config = create_config("convit_nano", img_size=64, patch_size=16, num_classes=0)
    sizes = {"global_crop_size": 64, "batch_size": 128}
    plain, _ = cpu_seconds(config, get_method("simclr"), 4_000, sizes)
    scratch, looks = cpu_seconds(config, get_method("simclr"), 4_000, sizes, labels="scratch")
    probe, _ = cpu_seconds(config, get_method("simclr"), 4_000, sizes, labels="probe")
    assert looks == 0
    assert probe < scratch < plain


def test_labels_keep_small_patches_where_there_is_time_for_them() -> None:
    words = "config=convit_supervised data=textures run=cpu run.threads=1 trunk=convit_nano"
    few = make_plan(
        compose_experiment([*words.split(), "data.subset='classes=first:60,per_class=4'"])
    )
    assert few.trunk is not None and few.trunk.patch_size == 8
    assert few.options["optim"]["epochs"] == 400
    all_of_them = make_plan(compose_experiment([*words.split(), "optim.epochs=5"]))
    assert all_of_them.trunk is not None and all_of_them.trunk.patch_size == 16


def test_runs_with_labels_end_on_a_processor_too() -> None:
    """A thousand digits took over an hour."""
    words = "config=convit_supervised data=digits run=cpu run.threads=1 trunk=convit_nano"
    large = ("trunk.embed_dim=512", "trunk.depth=24")
    chosen = make_plan(compose_experiment([*words.split(), *large]))
    assert 10 < chosen.options["optim"]["epochs"] < 400
    assert chosen.trunk is not None and chosen.trunk.patch_size == 2
    found = re.match(r"about (\d+) minutes", chosen.choices["epochs"].reason)
    assert found is not None and CPU_MINUTES - 2 <= int(found[1]) <= CPU_MINUTES


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


PLAIN = {"mixup": 0.0, "cutmix": 0.0, "erasing": 0.0, "rand_augment": None, "repeats": 1}


def method_options(plan: Plan) -> dict[str, object]:
    return {name: plan.options["method"][name] for name in PLAIN}


def test_few_images_with_labels_are_shown_plainly(tmp_path: Path) -> None:
    """After 20 epochs of the published recipe digits were at 38 to 61 %, of a plain one at 97."""
    published = compose_experiment(["config=convit_supervised"]).tree.method
    assert method_options(digits("supervised", "trunk=convit_nano")) == PLAIN
    assert published.mixup == 0.8 and published.rand_augment == "rand-m9-mstd0.5-inc1"
    save_trunk(create_model("convit_nano", img_size=8, patch_size=2), tmp_path / "a.safetensors")
    weights = f"weights={tmp_path / 'a.safetensors'}"
    assert method_options(digits("finetune", weights)) == PLAIN
    given = method_options(digits("supervised", "trunk=convit_nano", "method.mixup=0.3"))
    assert given == PLAIN | {"mixup": 0.3}
    kept = digits(
        "supervised", "trunk=convit_nano", "method.rand_augment=rand-m5", "method.cutmix=1"
    )
    assert method_options(kept) == PLAIN | {"rand_augment": "rand-m5", "cutmix": 1.0}
    assert "rand-m5" in str(kept.choices["rand_augment"].value)
    sizes = ("crops.global_size=8", "trunk.patch_size=2", "optim.batch_size=64")
    left = digits("supervised", "trunk=convit_nano", "scale_to_data=false", *sizes)
    assert method_options(left) == {name: published[name] for name in PLAIN}


@pytest.mark.parametrize("method", ["dino", "linear"])
def test_nothing_else_has_such_a_recipe(tmp_path: Path, method: str) -> None:
    save_trunk(create_model("convit_nano", img_size=8, patch_size=2), tmp_path / "a.safetensors")
    weights = [f"weights={tmp_path / 'a.safetensors'}"] if method == "linear" else []
    chosen = digits(method, "trunk=convit_nano", *weights)
    assert not set(PLAIN) & set(chosen.choices)


def test_what_is_given_wins_in_a_short_run_of_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe changes there for the length alone, which was not known when it was asked for."""
    monkeypatch.setattr(scale_rules, "PLAIN_BELOW", 500)
    words = "config=convit_supervised data=digits run=cpu run.threads=1 trunk=convit_nano"
    large = ("trunk.embed_dim=512", "trunk.depth=24", "method.mixup=0.3")
    chosen = make_plan(compose_experiment([*words.split(), *large]))
    assert "a short run" in chosen.choices["cutmix"].reason
    assert method_options(chosen) == PLAIN | {"mixup": 0.3}
    monkeypatch.setattr(scaling, "CPU_MINUTES", 10_000.0)
    whole = make_plan(compose_experiment([*words.split(), *large]))
    assert "cutmix" not in whole.choices
    assert whole.options["method"]["mixup"] == 0.3
    monkeypatch.setattr(scaling, "CPU_MINUTES", 1.0)
    longer = make_plan(compose_experiment([*words.split(), *large, "optim.epochs=500"]))
    assert "cutmix" not in longer.choices
    assert longer.options["method"]["mixup"] == 0.3
