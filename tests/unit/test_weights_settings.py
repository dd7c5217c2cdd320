"""Every command that reads weights takes what a file may leave unsaid, and passes it on."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from convit_ssl.cli.main import COMMANDS, main
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.study import plan as study_plan
from convit_ssl.engines.launch import command
from convit_ssl.engines.options import starting_weights
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import make_plan
from convit_ssl.errors import UserError
from convit_ssl.export import load as loading
from convit_ssl.models import create_model
from convit_ssl.models.trunks import TrunkConfig, build_trunk, measured
from convit_ssl.weights_settings import WeightsSettings, loading_options

# What each needs to come to the weights; {w} is the file.
COMMANDS_WITH_WEIGHTS = {
    "check": "digits --trunk {w} --out {d}",
    "features": "{w} --data digits --out {d}/f",
    "explore": "{w} --data digits --out {d}/e",
    "knn": "{w} --data digits",
    "linear": "{w} --data digits",
    "scores": "{w} --data digits",
    "segment": "{w} --data folder --data-dir {d}/images --masks {d}/masks",
    "retrieve": "{w} --data digits",
    "evaluate": "{w} --data digits",
    "export": "{w} --to safetensors --out {d}/x",
    "import": "{w}",
    "audit": "{w}",
    "report": "{d}/run --data digits --images 3 --out {d}/r",
    "attention": "{d}/images/train/0.png --checkpoint {w} --out {d}/a.png",
}
BY_OPTIONS = {"train", "finetune", "study"}  # a run reads them
WITHOUT = {"options", "demo", "data", "subset", "results", "bench", "doctor"}
FLAGS = "--num-heads 3 --eps 1e-3 --activation relu --mean 0.5,0.4,0.3 --std 0.25"
SAID = {"num_heads": 3, "eps": 1e-3, "activation": "relu"}
IMAGES = {"mean": (0.5, 0.4, 0.3), "std": (0.25,)}


def test_every_command_is_in_the_list() -> None:
    assert {*COMMANDS_WITH_WEIGHTS} | BY_OPTIONS | WITHOUT == {*COMMANDS}


@pytest.mark.parametrize("name", [*COMMANDS_WITH_WEIGHTS, "finetune", "study"])
def test_every_command_has_all_flags(name: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"convit_ssl.cli.{name}_command").add_arguments(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    own = {"--" + field.name.replace("_", "-") for field in fields(WeightsSettings)}
    assert own - flags == set()
    assert "--weights" in flags


class Seen(UserError):
    """Raised in place of reading, so that nothing else has to be there."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def spy(path: Any, *args: Any, **options: Any) -> Any:
        calls.append({"path": str(path), **options})
        raise Seen("seen")

    for module in (weights_options, loading):
        for name in ("load_trunk", "load_network"):
            monkeypatch.setattr(module, name, spy)
    monkeypatch.setattr(study_plan, "load_trunk", spy)
    return calls


def words_of(name: str, weights: Any, tmp_path: Path) -> list[str]:
    """Words after a command's name that bring it to the weights."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    path = tmp_path / "w.pth"
    torch.save(weights, path)
    torch.save(weights, tmp_path / "run" / "checkpoints" / "checkpoint_e00001_s00000010.torch")
    for kind in ("images/train", "images/val", "masks/train", "masks/val"):
        (tmp_path / kind).mkdir(parents=True)
        for number in range(2):
            image = Image.new("L", (8, 8))
            image.putpixel((0, 0), number if kind.startswith("m") else 50 * number + len(kind))
            image.save(tmp_path / kind / f"{number}.png")
    return COMMANDS_WITH_WEIGHTS[name].format(w=path, d=tmp_path).split()


@pytest.mark.parametrize("name", COMMANDS_WITH_WEIGHTS)
def test_every_command_passes_them_on(
    name: str, seen: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(name, {}, tmp_path)
    main([name, *words, *FLAGS.split(), "--img-size", "8,32"])
    assert seen, capsys.readouterr().err
    call = seen[0]
    assert {key: call[key] for key in SAID} == SAID
    assert {key: call["images"][key] for key in IMAGES} == IMAGES
    assert call["img_size"] == (8, 32)


@pytest.fixture(scope="module")
def other() -> dict[str, Any]:
    """A checkpoint of a network that is not a ConViT."""
    pytest.importorskip("timm")
    config = measured(TrunkConfig("timm:test_vit", 32), (32,))
    network = {f"network.{k}": v for k, v in build_trunk(config).network.state_dict().items()}
    entry = {"model": dataclasses.asdict(config), "variant": config.trunk, "method": "simclr",
             "data": {"mean": [0.5] * 3, "std": [0.5] * 3}}  # fmt: skip
    state = {"base_model": {"model": {"trunk": network, "heads": {}}}}
    return {"classy_state_dict": state, "convit_ssl": entry}


@pytest.mark.parametrize("name", COMMANDS_WITH_WEIGHTS)
@pytest.mark.parametrize("flag", ["--num-heads 3", "--eps 1e-3", "--activation relu"])
def test_settings_of_a_plain_vit_are_refused_for_other_networks(
    name: str, flag: str, other: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([name, *words_of(name, other, tmp_path), *flag.split()])
    printed = capsys.readouterr()
    said = printed.out if name == "report" else printed.err  # which shows what else is there
    assert "holds timm:test_vit, " in said and f"leave {flag.split()[0]} out" in said
    assert code != 0 or name == "report"


def test_images_of_other_networks_can_be_described(other: dict[str, Any], tmp_path: Path) -> None:
    torch.save(other, tmp_path / "w.torch")
    images = {"mean": [0.1], "std": [0.2], "interpolation": "bilinear"}
    model: Any = loading.load_network(tmp_path / "w.torch", images=images)
    assert (
        model.provenance["data"]["mean"] == model.provenance["entry"]["data"]["mean"] == [0.1] * 3
    )
    with pytest.raises(UserError, match="takes 3 channels, and mean has 2 values"):
        loading.load_network(tmp_path / "w.torch", images={"mean": [0.1, 0.2]})


def _tree(words: list[str]) -> Any:
    return compose_experiment(words).tree


def test_finetune_hands_them_to_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[list[str]] = []
    monkeypatch.setattr(command, "run_experiment", lambda words, _: runs.append(words) or 0)
    flags = [*FLAGS.split(), "--weights-img-size", "8x32"]
    assert main(["finetune", "w.pth", "--data", "digits", "--device", "cpu", *flags]) == 0
    said = loading_options(_tree(runs[0]).weights_settings)
    assert said == {**SAID, "img_size": (8, 32), "images": IMAGES}


def test_training_and_studies_read_with_them(seen: list[dict[str, Any]], tmp_path: Path) -> None:
    torch.save({}, tmp_path / "w.pth")
    options = ["weights_settings.num_heads=3", "weights_settings.eps=1e-3",
               "weights_settings.mean=[0.5,0.4,0.3]", "weights_settings.std=[0.25]"]  # fmt: skip
    words = ["config=convit_dino", "data=digits", "run=cpu", f"weights={tmp_path}/w.pth"]
    with pytest.raises(Seen):
        make_plan(compose_experiment([*words, *options]))
    assert (seen[0]["eps"], seen[0]["num_heads"], seen[0]["images"]) == (1e-3, 3, IMAGES)
    main(f"study sample-efficiency --data digits --trunks deit_nano --checkpoints "
         f"deit_nano={tmp_path}/w.pth --fractions 1 --seeds 1 {FLAGS}".split())  # fmt: skip
    assert {key: seen[1][key] for key in SAID} == SAID


def test_settings_without_weights_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"weights_settings\.eps has no effect"):
        make_plan(compose_experiment(["config=convit_dino", "data=digits", "run=cpu",
                                      "weights_settings.eps=1e-5"]))  # fmt: skip
    with pytest.raises(UserError, match=r"teacher_settings\.mean has no effect"):
        make_plan(compose_experiment(["config=convit_dino", "data=digits", "run=cpu",
                                      "teacher_settings.mean=[0.5]"]))  # fmt: skip
    for words in (
        "check digits", "knn random:convit_nano --data digits", "knn pixels --data digits",
        "audit --trunk convit_nano", "study ablation --data digits",
    ):  # fmt: skip
        assert main([*words.split(), "--eps", "1e-5"]) != 0
        assert "--eps has no effect without a file of weights" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"resnet50 has its own"):
        make_plan(compose_experiment(["config=convit_simclr", "data=digits", "run=cpu",
                                      "trunk=resnet50", "weights=x.pth",
                                      "weights_settings.eps=1e-5"]))  # fmt: skip
    assert starting_weights.loading_options(WeightsSettings()) == {}


WITH_REFERENCES = ("knn", "linear", "retrieve")


@pytest.mark.parametrize("name", WITH_REFERENCES)
def test_flags_describe_the_network_and_not_its_references(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read: Any = weights_options.load_network
    calls: dict[str, dict[str, Any]] = {}

    def spy(path: Any, *args: Any, **options: Any) -> Any:
        calls[Path(path).name] = options
        if Path(path).name == "other.pth":
            raise UserError("other.pth does not say its heads")
        given = {key: value for key, value in options.items() if key not in SAID}
        return read(path, **{**given, "images": {}, "img_size": None, "weights": "teacher"})

    monkeypatch.setattr(weights_options, "load_network", spy)
    model = create_model("convit_nano", img_size=8, patch_size=4, num_classes=0)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    torch.save({}, tmp_path / "other.pth")
    words = f"{tmp_path}/w.pth --data digits --reference {tmp_path}/other.pth --weights student"
    assert main([name, *words.split(), *FLAGS.split(), "--crop-ratio", "0.5"]) != 0
    assert calls["w.pth"]["eps"] == 1e-3, calls
    assert calls["other.pth"]["weights"] == "teacher"
    assert not {*SAID, "mean"} & {*calls["other.pth"], *calls["other.pth"]["images"]}
    assert calls["other.pth"]["images"] == {}
    said = capsys.readouterr().err
    assert "--reference" in said and "convit-ssl import" in said and "alone" in said


@pytest.mark.parametrize("flag", FLAGS.replace("--", "|--").split("|")[1:])
def test_flags_are_refused_for_what_timm_describes(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["knn", "timm:resnet18", "--data", "digits", *flag.split()]) != 0
    said = capsys.readouterr().err
    assert f"{flag.split()[0]} has no effect on timm:resnet18, a frozen network" in said
