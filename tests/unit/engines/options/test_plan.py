"""From an experiment to numbers: rates, steps, sizes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from convit_ssl.adapters.inputs import open_inputs
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.engines.callbacks.console import run_facts
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import Plan, make_plan
from convit_ssl.engines.options.write import write_config
from convit_ssl.errors import UserError
from convit_ssl.export import load_trunk, reading_of
from convit_ssl.export.save import save_trunk
from convit_ssl.models import create_model
from convit_ssl.models.trunks import TrunkConfig

BASE = ("data=digits", "run=cpu", "trunk=convit_nano", "trunk.patch_size=4", "crops.global_size=8")


def plan(*options: str, config: str = "convit_dino") -> Plan:
    return make_plan(compose_experiment([f"config={config}", *BASE, *options]))


def interpolations(tree: object) -> list[str]:
    if isinstance(tree, dict):
        return [found for value in tree.values() for found in interpolations(value)]
    if isinstance(tree, list):
        return [found for value in tree for found in interpolations(value)]
    return [tree] if isinstance(tree, str) and "${" in tree else []


def test_rates_are_per_256_images_and_durations_in_epochs() -> None:
    made = plan("optim.batch_size=128", "optim.lr=1e-3", "optim.epochs=7", "run.processes=2")
    derived = made.options["derived"]
    assert derived["lr"] == pytest.approx(5e-4)
    assert derived["world_size"] == 2
    assert derived["batch_per_process"] == 64
    assert derived["steps_per_epoch"] == made.facts["images"] // 128
    vissl = made.config
    assert vissl["OPTIMIZER"]["param_schedulers"]["lr"]["base_value"] == pytest.approx(5e-4)
    assert vissl["OPTIMIZER"]["num_epochs"] == 7
    assert vissl["DATA"]["TRAIN"]["BATCHSIZE_PER_REPLICA"] == 64
    assert vissl["DISTRIBUTED"]["NUM_PROC_PER_NODE"] == 2


def test_a_folder_for_built_in_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data=digits is built in and does not use data_dir"):
        plan(f"data_dir={tmp_path}")


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """Grey images of a camera of 12 bits, most of them dim, and one that is cut short."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(24):
            peak = (200, 900, 4000)[number % 3]
            image = Image.fromarray(generator.integers(0, peak, (12, 12)).astype(np.uint16))
            path = tmp_path / split / "ab"[number % 2] / f"{number:02}.tiff"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    (tmp_path / "train" / "a" / "00.tiff").write_bytes(path.read_bytes()[:200])
    return tmp_path


def test_grey_of_16_bits_has_one_white_for_the_collection(camera: Path) -> None:
    options = ("data=folder", f"data_dir={camera}", "optim.batch_size=8", "data.max_corrupt=0.1")
    made = plan(*options)
    assert made.facts["white_level"] == 4095
    assert made.options["data"]["white_level"] == 4095
    assert "grey, white at 4,095" in run_facts(made, 1, None)["data"]
    assert plan(*options, "data.white_level=16383").facts["white_level"] == 16383
    dataset = open_inputs(OmegaConf.create(made.options), torch.device("cpu")).train
    assert dataset.reading.white_level == 4095
    with pytest.raises(UserError, match=r"data.white_level=-1"):
        plan(*options, "data.white_level=-1")
    assert plan().facts["white_level"] == 0


def test_a_resumed_run_keeps_its_range(camera: Path, tmp_path: Path) -> None:
    """Whatever images came or went: else it could not be resumed."""
    options = ("data=folder", f"data_dir={camera}", "optim.batch_size=8", "data.max_corrupt=0.1")
    where = f"run.dir={tmp_path / 'run'}"
    made = plan(*options, where)
    write_config(made)
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint_e0001_s00000003.torch"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    bright = np.full((12, 12), 60000, np.uint16)
    for number in range(30, 40):
        Image.fromarray(bright).save(camera / "train" / "a" / f"{number}.tiff")
    assert plan(*options, where).options["data"]["white_level"] == 4095
    for fresh in (plan(*options), plan(*options, where, "run.overwrite=true")):
        assert fresh.options["data"]["white_level"] == 0, "two depths, each image by itself"
        assert "mix bit depths" in run_facts(fresh, 1, None)["note"]


def test_ranges_are_two_growing_numbers(camera: Path) -> None:
    options = ("data=folder", f"data_dir={camera}", "optim.batch_size=8", "data.max_corrupt=0.1")
    made = plan(*options, "data.signed_range=[-1000,400]", "data.exif_rotation=true")
    assert made.facts["signed_range"] == [-1000, 400]
    dataset = open_inputs(OmegaConf.create(made.options), torch.device("cpu")).train
    assert dataset.reading == Reading(4095, (-1000.0, 400.0), None, exif_rotation=True)
    assert "signed from -1,000 (black) to 400 (white)" in run_facts(made, 1, None)["data"]
    for wrong in ("[400,-1000]", "[1]", "[1,2,3]"):
        with pytest.raises(UserError, match=r"data.float_range=.*two increasing numbers"):
            plan(*options, f"data.float_range={wrong}")


def test_the_white_of_the_weights_is_kept(camera: Path, tmp_path: Path) -> None:
    trunk = create_model("convit_nano", num_classes=0, patch_size=4, img_size=8)
    trunk.provenance = {"entry": {"data": {"white_level": 16383}}}
    trunk.provenance["data"] = trunk.provenance["entry"]["data"]
    save_trunk(trunk, tmp_path / "trunk.safetensors")
    assert reading_of(load_trunk(tmp_path / "trunk.safetensors")).white_level == 16383
    options = ("data=folder", f"data_dir={camera}", "optim.batch_size=8", "data.max_corrupt=0.1")
    weights = f"weights={tmp_path / 'trunk.safetensors'}"
    made = plan(*options, weights, config="convit_finetune")
    assert made.facts["white_level"] == 16383


def test_nothing_is_left_unresolved() -> None:
    assert interpolations(plan().config) == []


def test_what_was_given_is_not_scaled_to_the_data() -> None:
    made = plan("optim.epochs=3", "method.out_dim=77")
    assert made.options["optim"]["epochs"] == 3
    assert made.options["method"]["out_dim"] == 77
    free = plan("scale_to_data=false", "optim.batch_size=64")
    assert free.choices == {}
    assert free.options["method"]["out_dim"] == 65536


def test_warm_up_is_no_longer_than_the_run() -> None:
    made = plan("optim.epochs=2", "optim.warmup_epochs=10")
    assert made.options["optim"]["warmup_epochs"] == 2


def test_threads_and_workers_that_were_given() -> None:
    made = plan("run.threads=3", "data.workers=0")
    assert (made.placement.threads, made.placement.workers) == (3, 0)


@pytest.mark.parametrize(
    ("depth", "features"),
    [
        (3, ["lastCLS", "lastCLS+meanPATCH"]),
        (4, ["lastCLS", "concatCLS2", "lastCLS+meanPATCH", "concatCLS2+meanPATCH"]),
    ],
)
def test_probes_take_features_that_the_network_has(depth: int, features: list[str]) -> None:
    made = plan(f"trunk.depth={depth}", "trunk.num_gpsa_layers=2", config="convit_linear")
    model = made.config["MODEL"]
    assert [head[1]["features"] for head in model["HEAD"]["PARAMS"]] == features
    settings = model["FEATURE_EVAL_SETTINGS"]["LINEAR_EVAL_FEAT_POOL_OPS_MAP"]
    assert [entry[0] for entry in settings] == features


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("optim.batch_size=99999",), ["optim.batch_size=99999", "use at most"]),
        (("optim.batch_size=99", "run.processes=2"), ["is not divisible by 2", "use 98"]),
        (("optim.batch_size=10", "optim.accumulate=4"), ["optim.accumulate", "use 8"]),
        (("crops.global_size=10",), ["crops.global_size=10", "use 8 or 12"]),
        (("crops.local_count=2", "crops.local_size=6"), ["crops.local_size=6"]),
        (("trunk.num_heads=5",), ["trunk", "5"]),
        (("augment=none",), ["augment"]),
        (("watch.every=-1",), ["watch.every=-1", "0 or more"]),
        (("watch.knn_images=0",), ["watch.knn_images=0", "1 or more"]),
        (("optim.batch_size=0",), ["optim.batch_size=0", "1 or more"]),
        (("trunk.in_chans=1",), ["trunk.in_chans=1", "3 channels"]),
        (("trunk.in_chans=4",), ["trunk.in_chans=4", "3 channels"]),
        (("trunk.in_chans=4", "data.channels=all"), ["trunk.in_chans=4", "channels are read"]),
        (("data.channels=[1,1]",), ["data.channels=", "different numbers"]),
        (("data.depth=16",), ["data.depth=16", "native"]),
        (("data.window=5",), ["data.window=5", "-1000:400"]),
        (("data.channels=all", "augment=device"), ["augment=device", "augment=fast"]),
        (("data.mean=[0.5]",), ["data.mean", "data.channels"]),
        (("data.reader=jpg",), ["data.reader=jpg", "auto"]),
        (("optim.accumulate=0",), ["optim.accumulate=0"]),
        (("optim.epochs=0",), ["optim.epochs=0"]),
        (("trunk.embed_dim=0",), ["trunk.embed_dim=0"]),
        (("trunk.depth=-1",), ["trunk.depth=-1"]),
        (("trunk.mlp_ratio=nan",), ["trunk.mlp_ratio=nan", "more than 0"]),
        (("run.keep_checkpoints=0",), ["run.keep_checkpoints=0"]),
        (("run.timeout_minutes=0",), ["run.timeout_minutes=0", "more than 0"]),
        (("run.grace_seconds=inf",), ["run.grace_seconds=inf"]),
        (("augmentation.horizontal_flip=2",), ["horizontal_flip=2", "from 0 to 1"]),
        (("run.name=../../x",), ["run.name=../../x", "run.dir="]),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options: tuple[str, ...], words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        plan(*options)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("layout", ["flat", "classes"])
def test_any_folder_of_images_of_any_shape(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [(8, 8), (16, 8), (8, 20), (31, 17)]
    for number in range(16):
        name = "." if layout == "flat" else f"train/{'ab'[number % 2]}"
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", shapes[number % 4], (number, 0, 9)).save(tmp_path / name / f"{number}.png")
    monkeypatch.chdir(tmp_path.parent)
    made = plan("data=folder", f"data_dir={tmp_path.name}", "optim.batch_size=8")
    assert made.options["data_dir"] == str(tmp_path)  # a report may be made from elsewhere
    assert made.facts["images"] == 16
    assert made.facts["classes"] == (0 if layout == "flat" else 2)
    assert made.options["derived"]["steps_per_epoch"] == 2
    assert made.config["MODEL"]["TRUNK"]["CONVIT_SSL"]["IMG_SIZE"] == 8


@pytest.mark.parametrize(
    ("classes", "words"), [(0, "contains no classifier"), (7, "has 7 classes")]
)
def test_a_teacher_decides_among_the_same_classes(classes: int, words: str, tmp_path: Path) -> None:
    model = create_model("convit_nano", img_size=8, patch_size=4, num_classes=classes)
    torch.save(model.state_dict(), tmp_path / "teacher.pth")
    given = f"method.distill_from={tmp_path}/teacher.pth"
    with pytest.raises(UserError, match=words):
        plan(given, config="convit_supervised")


def test_tests_on_val_are_at_least_an_epoch_apart() -> None:
    with pytest.raises(UserError, match=r"method.test_every=0: give 1 or more"):
        plan("method.test_every=0", config="convit_supervised")


def cnn(*options: str, config: str = "convit_supervised") -> Plan:
    words = [f"config={config}", "data=digits", "run=cpu", "trunk=resnet50", *options]
    return make_plan(compose_experiment(words))


def test_the_cnn_of_the_comparison_is_an_entry_of_the_table_of_trunks() -> None:
    made = cnn()
    assert made.trunk == TrunkConfig("resnet50", 8, embed_dim=2048)
    trunk = made.config["MODEL"]["TRUNK"]
    assert (trunk["NAME"], trunk["CONVIT_SSL_OTHER"]["TRUNK"]) == ("convit_ssl_other", "resnet50")
    assert "patch_size" not in made.choices
    assert made.options["crops"]["global_size"] == 8
    by_variant = make_plan(
        compose_experiment(
            ["config=convit_supervised", "data=digits", "run=cpu", "trunk.variant=resnet50"]
        )
    )
    assert by_variant.config["MODEL"]["TRUNK"]["NAME"] == "convit_ssl_other"


def test_a_cnn_on_tiny_images_is_trained_in_float32_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch's bfloat16 gradients of a stride over a map of one position are arbitrary there."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert cnn().options["run"]["precision"] == "fp32"
    assert cnn("crops.global_size=32").options["run"]["precision"] == "bf16"
    assert plan().options["run"]["precision"] == "bf16"
    assert cnn(config="convit_linear").options["run"]["precision"] == "bf16"  # no gradients
    with pytest.raises(UserError, match="crops of 8 px become maps of one position"):
        cnn("run.precision=bf16")


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        (("optim.accumulate=2",), "convit_supervised", "uses batch normalisation, so optim.acc"),
        (("trunk.patch_size=4",), "convit_supervised", "has no trunk.patch_size; leave it out"),
        (("optim.layer_decay=0.7",), "convit_supervised", "does not say what its layers are"),
        (("run.grad_checkpointing=true",), "convit_supervised", "has no run.grad_checkpointing"),
    ],
)
def test_what_needs_a_convit_is_refused_of_a_cnn(
    options: tuple[str, ...], config: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        cnn(*options, config=config)


def test_the_screen_tells_what_was_given_from_what_was_chosen() -> None:
    said = run_facts(plan("data=digits", "run=cpu", "optim.epochs=7"), 1, None)["from data"]
    assert said.startswith("epochs=7 (given), warmup_epochs=1, ")
    assert " per 256 images" in said


def test_the_screen_tells_how_images_with_labels_are_shown() -> None:
    words = ("data=digits", "run=cpu")
    facts = run_facts(plan(*words, config="convit_supervised"), 1, None)
    assert facts["views"].endswith("augment=fast")
    assert "rand_augment=null, repeats=1" in facts["from data"]
    policy = ("method.rand_augment=rand-m9-mstd0.5-inc1", "method.erasing=0.25")
    views = run_facts(plan(*words, *policy, config="convit_supervised"), 1, None)["views"]
    assert views.endswith(", rand-m9-mstd0.5-inc1 and erasing 0.25 by timm")


def test_a_slurm_cluster_without_gpus_is_allowed() -> None:
    assert plan("run.gpus_per_node=0").options["run"]["gpus_per_node"] == 0
