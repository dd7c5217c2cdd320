"""`convit-ssl study`: its commands are ones that training understands, and mistakes are refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from convit_ssl.cli.main import main
from convit_ssl.cli.study import plan as study_plan
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.evaluation.studies.design import Settings, ablation, sample_efficiency


def test_every_arm_is_an_experiment() -> None:
    """Composed by the engine itself, so that a renamed setting is found here."""
    settings = Settings("digits", epochs=2, batch_size=32, overrides=("method.repeats=1",))
    runs = [
        *sample_efficiency(["deit_nano"], settings, [0.05], [1], {"deit_nano": "runs/x"}).runs,
        *ablation("nano", settings, ["table3"], seeds=[3], depth=6).runs[3:6:2],
        ablation("nano", settings, ["gpsa-layers"], seeds=[3], depth=6).runs[1],
    ]
    trees = [compose_experiment(run.overrides()).tree for run in runs]
    scratch, tuned, no_gating, frozen, layers = trees
    assert scratch.experiment == "convit_supervised"
    assert scratch.data.subset == "fraction=0.05,seed=1"
    assert (scratch.optim.epochs, scratch.optim.warmup_epochs, scratch.seed) == (40, 2, 1)
    assert (tuned.experiment, tuned.weights) == ("convit_finetune", "runs/x")
    assert (no_gating.trunk.use_gating, no_gating.trunk.local_init) == (False, False)
    assert (frozen.trunk.freeze_position, frozen.trunk.local_init) == (True, False)
    assert layers.trunk.num_gpsa_layers == 1


def test_dry_run_prints_commands(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "study ablation --data digits --seeds 2 --epochs 3 --batch-size 50 --dry-run"
    assert main(arguments.split()) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 14
    words = shlex.split(lines[0])
    assert words[1:4] == ["-m", "convit_ssl.cli.main", "train"]
    assert "optim.epochs=30" in words
    assert "run.dir='studies/ablation_digits/runs/convit-10pct-seed0'" in words


def test_a_study_of_scores_trains_on_the_division_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(24):
        path = tmp_path / "images" / "ab"[number % 2] / f"p{number // 4}_{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(path)
    words = ["study", "scores", "--data", "folder", "--data-dir", str(tmp_path / "images")]
    words += ["--holdout", "0.25", "--group-by", "name:(p[0-9]+)_", "--runs", "2", "--dry-run"]
    assert main([*words, "--out", str(tmp_path / "study")]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2
    for line in lines:
        given = shlex.split(line)
        assert f"run.root={tmp_path}/study/images/runs" in given, "one folder for each collection"
        assert "data.holdout=0.25" in given and "data.group_by=name:(p[0-9]+)_" in given


@pytest.mark.parametrize(
    ("images", "run", "mixup"), [(1_001, "gpu1", 0.0), (1_000, "cpu", 0.0), (1_000, "gpu1", 0.8)]
)
def test_one_recipe_at_every_share(
    images: int,
    run: str,
    mixup: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run by itself would take another recipe for 5 % of the images than for all of them."""
    monkeypatch.setattr(study_plan, "PLAIN_BELOW", images)
    monkeypatch.setattr(study_plan, "_check_weights", lambda planned, settings: None)
    monkeypatch.setattr(study_plan, "_file_hash", lambda path: path)
    arguments = f"""study sample-efficiency --data digits --trunks deit_nano --seeds 1 --epochs 3
        --batch-size 50 --run {run} --fractions 0.05 1 --weights deit_nano={__file__}
        --set method.erasing=0.5 --dry-run"""
    assert main(arguments.split()) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    trees = [compose_experiment(shlex.split(line)[4:]).tree for line in lines]
    names = [(tree.experiment, tree.data.subset) for tree in trees]
    few = "fraction=0.05,seed=0"
    assert names == [
        ("convit_supervised", few),
        ("convit_finetune", few),
        ("convit_supervised", None),
        ("convit_finetune", None),
    ]
    assert [tree.method.mixup for tree in trees] == [mixup] * 4
    assert [tree.method.erasing for tree in trees] == [0.5] * 4
    assert [tree.method.repeats for tree in trees] == ([1] * 4 if mixup == 0 else [3, 1] * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sample-efficiency --data digits --batch-size 64", "use --batch-size 50 or less"),
        ("sample-efficiency --data digitz", "digitz"),
        ("sample-efficiency --data digits --trunks resnet", "--trunks: unknown 'resnet'"),
        ("sample-efficiency --data digits --weights convit_nano=absent", "found 'convit_nano=abs"),
        ("ablation --data digits --size giant", "use nano, tiny, small or base"),
        ("ablation --data digits --presets table9", "table3, gpsa-layers, locality and positions"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "study"
    assert main(["study", *arguments.split(), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not out.exists()


def test_a_study_needs_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / "one.png")
    arguments = ["study", "sample-efficiency", "--data", "folder", "--data-dir", str(tmp_path)]
    assert main([*arguments, "--out", str(tmp_path / "study")]) == 2
    assert "have no labels" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_baselines_end_in_one_table_and_are_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = (
        "run.threads=1 data.workers=0 run.tensorboard=false run.precision=fp32 "
        "trunk.embed_dim=32 trunk.depth=2 trunk.num_gpsa_layers=1 watch.every=0"
    )
    out = tmp_path / "study"
    words = (
        "study baselines --data digits --subset per_class=6,seed=0 --methods simclr --seeds 1 "
        f"--epochs 1 --out {out} --set {tiny}"
    ).split()
    assert main(words) == 0
    found = json.loads((out / "results.json").read_text())
    rows = {row["row"]: row for row in found["rows"]}
    assert list(rows) == [
        "raw pixels",
        "untrained",
        "simclr",
        "labels alone, ConViT",
        "labels alone, ResNet-18",
        "pretrained (simclr), fine-tuned",
    ]
    assert "knn" in rows["simclr"]["probes"]
    spent = rows["simclr"]["core_minutes"]
    assert rows["labels alone, ResNet-18"]["core_minutes"] == pytest.approx(1.5 * spent, rel=0.2)
    assert "frozen network" in found["not_measured"]
    assert any("fine-tuned" in text for text in found["verdicts"])
    capsys.readouterr()
    cells = {path.name: path.read_bytes() for path in (out / "cells").iterdir()}
    assert main(words) == 0  # nothing is measured again
    assert {path.name: path.read_bytes() for path in (out / "cells").iterdir()} == cells
    assert "## Verdict" in capsys.readouterr().out
    assert main([*words, "--no-labels"]) == 0
    found = json.loads((out / "results.json").read_text())
    assert [row["row"] for row in found["rows"]] == ["raw pixels", "untrained", "simclr"]
    changed = [word.replace("per_class=6", "per_class=7") for word in words]
    assert main(changed) != 0
    assert "different subset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--folds 3", "use --holdout 0.2"),
        ("--methods nonsense", "unknown method 'nonsense'"),
        ("--reference timm:nonsense=missing.bin", "there is no file missing.bin"),
    ],
)
def test_baselines_refuse_before_they_train(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = f"study baselines --data digits --out {tmp_path / 'study'} {words}".split()
    assert main(given) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "study" / "runs").exists()


def test_a_dry_run_of_baselines_prints_its_commands_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    arguments = f"study baselines --data digits --methods dino simclr --out {out} --dry-run"
    assert main([*arguments.split(), "--seeds", "2", "--epochs", "3"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    trees = [compose_experiment(shlex.split(line)[4:]).tree for line in lines]
    assert [(tree.experiment, tree.optim.epochs, tree.seed) for tree in trees] == [
        ("convit_dino", 3, 0),
        ("convit_simclr", 3, 0),
        ("convit_dino", 3, 1),
        ("convit_simclr", 3, 1),
    ]
    assert main([*arguments.split(), "--seeds", "1", "--minutes", "2"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert ["calibration" in line for line in lines] == [True] * 4 + [False] * 2
    assert main(f"study scores --data digits --runs 2 --out {out} --dry-run".split()) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [compose_experiment(shlex.split(line)[4:]).tree.data.name for line in lines] == [
        "digits"
    ] * 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("baselines --trunks convit_tiny", "--trunks; use --size"),
        ("baselines --folds 5", "--folds; it tests on one part of the images: use --holdout"),
        ("baselines --checkpoints convit_nano=x", "--checkpoints; use --reference FILE"),
        ("baselines --jobs 2", "--jobs; its runs are timed"),
        ("ablation --minutes 3", "--minutes; it is for: baselines"),
        ("pretraining --fractions 0.1", "--fractions; it is for: sample-efficiency, ablation"),
        ("sample-efficiency --methods dino", "--methods"),
        ("scores --seeds 5", "--seeds; use --runs"),
    ],
)
def test_options_of_another_kind_of_study_are_refused(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--methods" in words:  # the default is allowed: nothing is lost
        words += " simclr byol"
    assert main(["study", *words.split(), "--data", "digits", "--dry-run"]) == 2
    assert f"a study of {words.split()[0]} does not use {said}" in capsys.readouterr().err
