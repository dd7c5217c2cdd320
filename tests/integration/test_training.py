"""Real runs of the command, each of a few seconds: they train, end, go on, and say what they do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from convit_ssl.cli.main import main
from convit_ssl.errors import UserError
from convit_ssl.export import load_network, load_trunk
from tests.quick_run import Run

pytestmark = pytest.mark.slow
LABELLED = """
data=digits run=cpu trunk=convit_nano trunk.embed_dim=32 trunk.depth=4 trunk.num_gpsa_layers=2
trunk.patch_size=4 crops.global_size=8 optim.batch_size=100 optim.epochs=2 run.threads=1
run.precision=fp32 data.workers=0 run.tensorboard=false run.name=run
"""
# Nothing that each process draws for itself.
ALIKE = ("optim.epochs=2", "trunk.drop_path_rate=0", "trunk.depth=4", "data.workers=0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs in one process, with everything that a run may write."""
    options = ("run.tensorboard=true", "watch.every=1")
    run = Run(tmp_path_factory.mktemp("trained"), *ALIKE)
    run.arguments = [a for a in run.arguments if not a.startswith(("watch.", "run.tensorb"))]
    run.arguments += options
    assert run.complete() == 0, run.text()
    return run


def test_a_run_says_what_matters_in_under_forty_lines(trained: Run) -> None:
    # Without what a slow machine says meanwhile.
    waiting = "convit-ssl train: "
    lines = [line for line in trained.text().splitlines() if not line.startswith(waiting)]
    assert len(lines) < 40
    text = "\n".join(lines)
    for words in ("data", "model", "schedule", "machine", "epoch 1/2", "epoch 2/2", "next: "):
        assert words in text
    assert str(trained.folder) in text.replace("\n", "")
    assert "\x1b" not in text, "no terminal, no colours"


def test_a_run_leaves_its_files(trained: Run) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.jsonl", "result.json", "checkpoints"} <= names
    assert list((trained.folder / "tensorboard").iterdir())
    for figures in trained.epochs():
        assert 0 <= figures["knn"] <= 1
        assert len(figures["gates"]) == 2
        assert len(figures["nonlocality"]) == 4
    assert trained.stray_files() == []


def test_a_checkpoint_says_where_it_comes_from(trained: Run) -> None:
    content = torch.load(trained.folder / "checkpoints" / "last.torch", weights_only=True)
    entry = content["convit_ssl"]
    assert entry["command"] == ["convit-ssl", "train", *trained.arguments]
    assert entry["hardware"]["cpu"] and entry["hardware"]["processes"] == 1
    assert {"convit_ssl", "python", "torch"} <= set(entry["versions"])
    assert len(entry["data"]["digest"]) >= 12


def test_two_processes_learn_as_one(tmp_path: Path) -> None:
    # Batch normalisation in the head sees each process's own images on a CPU, where PyTorch has
    # no synchronised one; without it the two must agree.
    alike = (*ALIKE, "method.use_bn=false")
    one, two = Run(tmp_path / "one", *alike), Run(tmp_path / "two", *alike, "run.processes=2")
    assert one.complete() == 0, one.text()
    assert two.complete() == 0, two.text()
    assert two.losses() == pytest.approx(one.losses(), rel=1e-3)
    assert len(two.text().splitlines()) < 40


def test_a_finished_run_says_so(trained: Run) -> None:
    before = trained.text()
    assert trained.complete() == 0
    said = trained.text()[len(before) :]
    assert "is finished" in said and "run.overwrite=true" in said


def test_a_finished_run_is_not_taken_for_another(trained: Run) -> None:
    before = trained.text()
    assert trained.complete("seed=5") == 2
    assert "seed: 0 then, 5 now" in trained.text()[len(before) :]


def test_a_run_does_not_go_on_with_other_options(trained: Run) -> None:
    before = trained.text()
    assert trained.complete("optim.epochs=3", "optim.lr=0.123") == 2
    said = trained.text()[len(before) :]
    assert "optim.lr" in said and "0.123" in said and "run.accept_changes" in said
    assert "Traceback" not in said


def test_killed_within_an_epoch_it_ends_with_the_same_figures(tmp_path: Path) -> None:
    options = ("optim.epochs=4", "run.checkpoint_minutes=0.0005")
    whole = Run(tmp_path / "whole", *options)
    assert whole.complete() == 0, whole.text()
    run = Run(tmp_path / "killed", *options).start()
    run.until(lambda: any(step > 10 and step % 10 for step in run.saved()))
    run.end()
    assert run.complete() == 0, run.text()
    assert "resumed" in run.text()
    assert run.losses() == whole.losses()


# What images with labels go through in collections of 20,000 and more.
PUBLISHED = """method.mixup=0.8 method.cutmix=1 method.erasing=0.25 method.repeats=3
    method.rand_augment=rand-m9-mstd0.5-inc1"""


@pytest.mark.parametrize(
    ("experiment", "options"),
    [
        ("convit_supervised", ()),
        ("convit_supervised", tuple(PUBLISHED.split())),
        ("convit_finetune", ("weights",)),
        ("convit_linear", ("weights", "method.learning_rates=[0.01,0.1]")),
    ],
)
def test_labelled_experiments_train_and_are_tested(
    experiment: str, options: tuple[str, ...], trained: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    given = [f"weights={trained.folder}" if o == "weights" else o for o in options]
    run.arguments = [f"config={experiment}", *LABELLED.split(), f"run.root={tmp_path}", *given]
    run.arguments.append("method.test_every=1")  # by default as rarely as their cost asks
    assert run.complete() == 0, run.text()
    assert all(math.isfinite(loss) for loss in run.losses())
    # Tested on val, and looked at for its heads alone: what makes the paper's figures.
    for figures in run.epochs():
        assert "knn" not in figures
        if experiment == "convit_linear":  # its trunk is frozen
            assert "gates" not in figures
        else:
            assert len(figures["gates"]) == 2
            assert len(figures["nonlocality"]) == 4
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    tests = [line for line in lines if line["kind"] == "eval"]
    assert [line["epoch"] for line in tests] == [1, 2]
    assert all(0 < line["top1"] <= line["top5"] <= 1 for line in tests)
    assert "val top1" in run.text()


def test_weights_of_a_method_without_a_teacher_are_called_the_students(
    trained: Run, tmp_path: Path
) -> None:
    first = Run(tmp_path / "first")
    first.arguments = ["config=convit_simclr", *LABELLED.split(), f"run.root={first.root}"]
    first.arguments.append("optim.epochs=1")
    assert first.complete() == 0, first.text()
    for start, role in ((first, "student"), (trained, "teacher")):
        run = Run(tmp_path / role)
        given = ["config=convit_finetune", *LABELLED.split(), f"run.root={run.root}"]
        run.arguments = [*given, f"weights={start.folder}", "optim.epochs=1"]
        assert run.complete() == 0, run.text()
        written = (run.folder / "config.yaml").read_text()
        assert f"weights_from: {role}" in written


def test_the_cnn_of_the_comparison_trains_and_is_read_back(tmp_path: Path) -> None:
    run = Run(tmp_path)
    few = "optim.epochs=2 optim.batch_size=8 optim.lr=1e-2 run.threads=1 data.subset=per_class=2"
    words = f"config=convit_supervised data=digits trunk=resnet50 run=cpu {few}"
    run.arguments = [*words.split(), f"run.root={tmp_path}", "run.name=run", "watch.every=2"]
    assert run.complete() == 0, run.text()
    assert "resnet50: 23.5 M parameters, 2048 features" in run.text()
    assert all(math.isfinite(loss) for loss in run.losses())
    last = run.epochs()[-1]
    assert 0 <= last["knn"] <= 1, "features of a CNN are looked at as any others"
    assert "gates" not in last
    with pytest.raises(UserError, match="holds resnet50, and this needs a ConViT"):
        load_trunk(run.folder)
    images = torch.zeros(2, 3, 8, 8)
    assert load_network(run.folder)(images).shape == (2, 2048)


def test_probes_by_vissl_and_on_stored_features_agree(trained: Run, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.arguments = ["config=convit_linear", *LABELLED.split(), f"run.root={tmp_path}"]
    run.arguments += [f"weights={trained.folder}", "optim.epochs=60", "method.test_every=60"]
    run.arguments += ["optim.batch_size=20", "optim.lr=16"]
    assert run.complete() == 0, run.text()
    by_vissl = json.loads((run.folder / "result.json").read_text())["accuracy"]

    written = tmp_path / "linear.json"
    assert main(["linear", str(trained.folder), "--data", "digits", "--json", str(written)]) == 0
    (on_features,) = json.loads(written.read_text())["results"]
    low, high = on_features["interval_95"]
    assert low - 0.01 < by_vissl < high + 0.01


def test_a_loss_that_is_not_finite_ends_the_run_with_its_images(tmp_path: Path) -> None:
    run = Run(tmp_path, "optim.epochs=2", "optim.lr=1e30", "optim.clip_grad=null")
    run.arguments.append("optim.warmup_epochs=0")
    assert run.complete() == 2, run.text()
    assert run.text().count("the loss is not finite") == 1
    assert "Traceback" not in run.text()
    (report,) = run.folder.glob("not_finite_rank*.json")
    files = json.loads(report.read_text())["files"]
    assert len(files) == 100 and all(Path(file).is_file() for file in files)


@pytest.mark.parametrize("layout", ["flat", "classes"])
def test_a_folder_of_ones_own_with_a_broken_image(tmp_path: Path, layout: str) -> None:
    images = tmp_path / "images"
    generator = torch.Generator().manual_seed(0)
    for number in range(220):
        name = "." if layout == "flat" else f"train/{'ab'[number % 2]}"
        (images / name).mkdir(parents=True, exist_ok=True)
        height, width = ((16, 16), (24, 16), (16, 30))[number % 3]
        pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(images / name / f"{number:03d}.png")
    broken = next(images.rglob("007.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    run = Run(tmp_path, "optim.epochs=2", "data.workers=0")
    source = ["data=folder", f"data_dir={images}"]
    run.arguments = [*source, *(a for a in run.arguments if a != "data=digits")]
    assert run.complete() == 0, run.text()
    assert all(math.isfinite(loss) for loss in run.losses())
    faults = (run.folder / "unreadable.jsonl").read_text().splitlines()
    assert len(faults) == 1 and str(broken) in faults[0]
    assert "note: 1 unreadable image: training used another in its place" in run.text()


def test_classes_are_chosen_in_val_as_in_train(tmp_path: Path) -> None:
    chosen = "data.subset='classes=3+7'", "method.test_every=2", "optim.batch_size=20"
    run = Run(tmp_path)
    labelled = "config=convit_supervised", *LABELLED.split()
    run.arguments = [*labelled, f"run.root={tmp_path}", *chosen]
    assert run.complete() == 0, run.text()
    result = json.loads((run.folder / "result.json").read_text())
    assert result["data"]["classes"] == 2
    assert "top5" not in result["figures"], "there are two classes"
    assert set(result["per_class"]) == {"3", "7"}, "val has images of other classes"
    assert 0 <= result["balanced_accuracy"] <= 1 and 0 <= result["auc"] <= 1
    assert "balanced accuracy" in run.text() and "recall by class: 3" in run.text()
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    tested = [m["epoch"] for m in map(json.loads, lines) if m["kind"] == "eval"]
    assert tested == [2]
