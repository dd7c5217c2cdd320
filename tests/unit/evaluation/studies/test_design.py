"""A study is the right list of runs."""

from __future__ import annotations

import pytest

from convit_ssl.errors import UserError
from convit_ssl.evaluation.studies.design import (
    Settings,
    ablation,
    check_batch,
    pretraining,
    sample_efficiency,
)
from tests.unit.evaluation.studies.fake_runs import SETTINGS


def test_every_run_takes_the_same_number_of_steps() -> None:
    study = sample_efficiency(["convit_nano", "deit_nano"], SETTINGS, seeds=[0, 1])
    assert len(study.runs) == 2 * 5 * 2
    assert len({run.name for run in study.runs}) == len(study.runs)
    assert {run.fraction: run.epochs for run in study.runs} == {
        0.05: 400, 0.1: 200, 0.3: 67, 0.5: 40, 1.0: 20,
    }  # fmt: skip
    unscaled = Settings("digits", epochs=20, scale_epochs=False)
    assert {r.epochs for r in sample_efficiency(["deit_nano"], unscaled).runs} == {20}


def test_seeds_come_one_after_the_other() -> None:
    seeds = [run.seed for run in sample_efficiency(["deit_nano"], SETTINGS).runs]
    assert seeds == sorted(seeds)


def test_command_of_a_run() -> None:
    study = sample_efficiency(
        ["convit_nano"], SETTINGS, [0.05, 1.0], [3], {"convit_nano": "runs/dino"}
    )
    words = {run.name: run.overrides() for run in study.runs}
    scratch = words["convit_nano-5pct-seed3"]
    assert scratch[0] == "config=convit_supervised"
    assert "data.subset='fraction=0.05,seed=3'" in scratch
    assert "optim.epochs=400" in scratch
    assert "seed=3" in scratch
    tuned = words["convit_nano_pretrained-100pct-seed3"]
    assert tuned[0] == "config=convit_finetune"
    assert "weights='runs/dino'" in tuned
    assert not any("subset" in word for word in tuned)


def test_a_cnn_is_spared_the_options_of_the_others() -> None:
    settings = Settings("digits", overrides=("trunk.patch_size=2", "optim.lr=1e-2"))
    runs = sample_efficiency(["convit_nano", "resnet50"], settings, [1.0], [0]).runs
    given = {run.arm.trunk: run.overrides() for run in runs}
    assert "trunk.patch_size=2" in given["convit_nano"]
    assert [word for word in given["resnet50"] if word.startswith("trunk")] == ["trunk=resnet50"]
    assert "optim.lr=1e-2" in given["resnet50"]


def test_only_seeds_may_differ_in_an_average() -> None:
    runs = sample_efficiency(["convit_nano", "deit_nano"], SETTINGS, [0.1, 1.0], [0, 1]).runs
    groups = {(run.arm.name, run.fraction): set() for run in runs}
    for run in runs:
        groups[run.arm.name, run.fraction].add(run.settings_hash())
    hashes = [h for group in groups.values() for h in group]
    assert len(hashes) == len(set(hashes)) == 4


def test_ablation_presets() -> None:
    study = ablation("nano", SETTINGS, ["table3", "gpsa-layers", "locality"], depth=6)
    by_name = {arm.name: arm for arm in study.arms}
    assert by_name["no gating, no conv init"].overrides == (
        "trunk.use_gating=false", "trunk.local_init=false",
    )  # fmt: skip
    assert by_name["DeiT"].trunk == "deit_nano"
    assert by_name["frozen position, no conv init"].paper == {1.0: 0.737, 0.1: 0.448}
    assert [n for n in by_name if "GPSA" in n] == [f"{n} GPSA layers" for n in range(6)]
    assert sum("locality" in name for name in by_name) == 5
    with pytest.raises(UserError, match="unknown ablation 'table4'"):
        ablation("nano", SETTINGS, ["table4"])


def test_impossible_studies() -> None:
    with pytest.raises(UserError, match="'deit_base', which is not among the trunks"):
        sample_efficiency(["convit_nano"], SETTINGS, weights={"deit_base": "x"})
    with pytest.raises(UserError, match=r"at most 1, found 5"):
        sample_efficiency(["convit_nano"], SETTINGS, fractions=[5])
    with pytest.raises(UserError, match="has no runs"):
        sample_efficiency(["convit_nano"], SETTINGS, seeds=[])
    with pytest.raises(UserError, match="50 images of 5 % of digits; use --batch-size 50"):
        check_batch(Settings("digits", batch_size=64), 1000, [0.05, 1])


def test_a_part_of_the_images_is_the_whole_of_a_study() -> None:
    settings = Settings("digits", epochs=20, images_per_class=40)
    runs = sample_efficiency(["deit_nano"], settings, [0.05, 0.3, 1.0], [2]).runs
    assert [run.subset for run in runs] == [
        "per_class=2,seed=2", "per_class=12,seed=2", "per_class=40,seed=2",
    ]  # fmt: skip
    assert "data.subset='per_class=40,seed=2'" in runs[-1].overrides()


def test_val_is_looked_at_once() -> None:
    [run] = sample_efficiency(["deit_nano"], SETTINGS, [0.1], [0]).runs
    assert {"optim.epochs=200", "method.test_every=200"} <= set(run.overrides())


def test_pretraining_study_has_its_methods_and_a_supervised_run_of_as_many_views() -> None:
    given = ("run.threads=1", "convit_dino:method.out_dim=64", "convit_supervised:method.mixup=0")
    settings = Settings("digits", epochs=4, batch_size=32, overrides=given)
    study = pretraining(["convit_nano"], ["dino", "simclr"], settings, [5])
    dino, simclr, supervised = (run.overrides() for run in study.runs)
    assert dino[0] == "config=convit_dino"
    assert dino[-2:] == ["run.threads=1", "method.out_dim=64"]
    assert simclr[-1] == "run.threads=1"
    assert not any(word.startswith(("optim.batch_size", "method.test_every")) for word in simclr)
    assert "optim.epochs=4" in dino
    assert {"optim.epochs=8", "method.mixup=0", "optim.batch_size=32"} <= set(supervised)
    with pytest.raises(UserError, match="unknown method 'dinno'"):
        pretraining(["convit_nano"], ["dinno"], settings)
