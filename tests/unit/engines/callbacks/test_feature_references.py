"""Comparisons while training: pixels by epoch 5, a verdict at the end, and a test read once."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convit_ssl.engines.callbacks import feature_checks as watch
from convit_ssl.engines.callbacks import feature_scores as watch_scores
from convit_ssl.engines.callbacks.feature_checks import Watch
from convit_ssl.engines.callbacks.feature_references import background_share
from convit_ssl.engines.callbacks.feature_scores import unproven
from convit_ssl.engines.callbacks.progress import TrainingHook
from convit_ssl.evaluation.label_free.scores import SCORES
from convit_ssl.models import create_model
from convit_ssl.options import KEY
from convit_ssl.schema_run import WatchOptions


def photographs(root: Path, images: int = 40) -> Path:
    """Two classes that differ by a small bright square on a busy background; three sessions."""
    draw = np.random.default_rng(0)
    for number in range(images):
        label = number % 2
        pixels = draw.integers(0, 255, (16, 16, 3)).astype(np.uint8)
        pixels[6:10, 6:10] = 255 * label
        place = root / f"s{number // 2 % 4}" / "ab"[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:03d}.png")
    return root


def looking_at(root: Path, **data: Any) -> Watch:
    options = SimpleNamespace(
        data=SimpleNamespace(
            name="folder", subset=None, max_corrupt=0.1, labels="folder:2", **data
        ),
        data_dir=str(root),
        seed=0,
        facts=SimpleNamespace(native_size=[16, 16], images=30),
        method=SimpleNamespace(name="dino"),
        crops=SimpleNamespace(global_size=16),
        derived=SimpleNamespace(
            processes=1, workers=0, batch_per_process=64, test_model=False, steps_per_epoch=3
        ),
        optim=SimpleNamespace(epochs=40),
        run=SimpleNamespace(dir=str(root.parent), timeout_minutes=5),
        watch=SimpleNamespace(every=None, knn_k=5, knn_images=None, best_by="knn"),
    )
    return Watch(options, torch.device("cpu"), contextlib.nullcontext)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that are opened, in order."""
    found: list[str] = []
    real = watch.open_dataset

    def open_dataset(name: str, folder: Any, split: str, *rest: Any, **more: Any) -> Any:
        found.append(split)
        return real(name, folder, split, *rest, **more)

    monkeypatch.setattr(watch, "open_dataset", open_dataset)
    return found


def test_the_test_part_is_read_for_the_verdict_alone(tmp_path: Path, opened: list[str]) -> None:
    look = looking_at(photographs(tmp_path / "images"), holdout=0.3, group_by="folder:1")
    trunk = create_model("convit_nano", img_size=16, patch_size=4, num_classes=0)
    figures = look.look(trunk)
    assert opened == ["train"]
    assert {"knn", "knn_pixels", "over_pixels", "background"} <= figures.keys()
    assert figures["knn_name"].endswith("within train)")  # not the images of the verdict
    groups = {f.split("/")[0] for f in look._bank.files}  # type: ignore[union-attr]
    voting, asked = look._pools  # type: ignore[misc]
    files = look._bank.files  # type: ignore[union-attr]
    assert not {files[i][:2] for i in voting} & {files[i][:2] for i in asked}
    figures["loss"] = 1.0
    verdict = look.verdict(trunk, figures)
    assert opened == ["train", "val"]
    assert verdict is not None and set(verdict.differences) == {"raw pixels", "untrained network"}
    tested = look.final_sides((10, 10), (10, 10))
    assert tested is not None and not groups & {f.split("/")[0] for f in tested.val.files}
    assert "group" in verdict.tested


def test_features_that_are_no_better_than_pixels_are_told_so_by_epoch_5(tmp_path: Path) -> None:
    look = looking_at(photographs(tmp_path / "images"))
    trunk = create_model("convit_nano", img_size=16, patch_size=4, num_classes=0)
    look._open()
    assert look.every > 5 and look.due(5)
    figures = {**look.look(trunk), "loss": 2.0}
    texts = look.references.messages(5, figures)
    assert texts and texts[0].startswith("epoch 5: features are not better than raw pixels yet")
    assert not look.references.messages(6, figures), "once is enough"


def test_accuracies_and_their_difference_are_of_one_kind(tmp_path: Path) -> None:
    """Where classes are uneven all three are of balanced accuracy, and the sum is right."""
    root = photographs(tmp_path / "images", 60)
    for file in sorted(root.glob("*/b/*.png"))[:22]:
        file.unlink()
    look = looking_at(root)
    trunk = create_model("convit_nano", img_size=16, patch_size=4, num_classes=0)
    figures = {**look.look(trunk), "loss": 2.0}
    features, pixels = figures["over_pixels_of"]
    assert figures["over_pixels_metric"] == "balanced accuracy"
    assert features - pixels == pytest.approx(figures["over_pixels"])
    figures["over_pixels_95"] = [-0.1, 0.1]
    (text,) = look.references.messages(5, figures)
    assert f"kNN balanced accuracy {100 * features:.1f} % and {100 * pixels:.1f} %" in text


def test_pixels_that_are_always_right_are_told_as_such(tmp_path: Path) -> None:
    look = looking_at(tmp_path)
    figures = {"knn": 1.0, "loss": 2.0, "over_pixels": 0.0, "over_pixels_95": [0.0, 0.0]}
    figures |= {"over_pixels_of": [1.0, 1.0], "over_pixels_metric": "accuracy"}
    (text,) = look.references.messages(5, figures)
    assert "cannot show a gain" in text and "not better" not in text


def test_knn_that_falls_while_the_loss_falls_is_said(tmp_path: Path) -> None:
    look = looking_at(tmp_path)
    for epoch, (knn, loss) in enumerate([(0.5, 3.0), (0.6, 2.5), (0.55, 2.2)], 1):
        assert not look.references.messages(epoch, {"knn": knn, "loss": loss})
    (text,) = look.references.messages(4, {"knn": 0.5, "loss": 2.0})
    assert "50.0 %, and 60.0 % after epoch 2" in text


def test_neighbours_by_the_background_are_told_from_those_by_the_object() -> None:
    draw = torch.Generator().manual_seed(0)
    back, front = torch.randint(0, 5, (2, 300), generator=draw)
    pictures = 0.1 * torch.rand(300, 3, 16, 16, generator=draw)
    pictures += back.view(-1, 1, 1, 1) / 5
    pictures[..., 5:11, 5:11] += (front - back).view(-1, 1, 1, 1) / 5
    one_hot = torch.nn.functional.one_hot
    noise = 0.01 * torch.rand(300, 5, generator=draw)
    assert background_share(one_hot(back, 5) + noise, pictures) > 0.5
    assert background_share(one_hot(front, 5) + noise, pictures) < -0.5


def test_a_network_that_learned_the_labels_is_judged_by_what_it_says(tmp_path: Path) -> None:
    for split, images in (("train", 60), ("val", 80)):
        photographs(tmp_path / "images" / split, images)
    look = looking_at(tmp_path / "images")
    look.options.data.labels = None
    look.options.derived.test_model = True
    for place in (tmp_path / "images").glob("*/s*/*/*.png"):  # class folders at the top
        label = tmp_path / "images" / place.parts[-4] / place.parts[-2]
        label.mkdir(exist_ok=True)
        place.rename(label / place.name)
    for place in (tmp_path / "images").glob("*/s*"):
        shutil.rmtree(place)

    class Middle(torch.nn.Module):
        """Says b where the middle is bright, or the other way round."""

        sign = 1.0

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            bright = images[..., 6:10, 6:10].mean(dim=(1, 2, 3))
            return [self.sign * torch.stack([-bright, bright], dim=1)]

    trunk = create_model("convit_nano", img_size=16, patch_size=4, num_classes=0)
    classifier = Middle().train()
    verdict = look.verdict(trunk, {"loss": 1.0}, classifier)
    assert verdict is not None and classifier.training
    assert verdict.differences["raw pixels"].value == 0.0  # both are always right
    assert set(verdict.differences) == {"raw pixels", "untrained network"}
    assert verdict.probe == "its own classifier, references by kNN"
    classifier.sign = -1.0
    verdict = look.verdict(trunk, {"loss": 1.0}, classifier)
    assert verdict is not None and verdict.outcome == "worse"
    assert verdict.differences["raw pixels"].value == -1.0


@pytest.mark.parametrize("name", list(SCORES))
def test_the_best_checkpoint_can_be_chosen_without_labels(tmp_path: Path, name: str) -> None:
    root = photographs(tmp_path / "images")
    look = looking_at(root)
    look.options.data.labels = None
    look.best_by = name
    for file in sorted(root.glob("*/*/*.png")):  # no class folders: no labels
        file.rename(root / f"{file.parts[-3]}{file.name}")
    for folder in root.glob("s*"):
        if folder.is_dir():
            shutil.rmtree(folder)
    trunk = create_model("convit_nano", img_size=16, patch_size=4, num_classes=0)
    figures = look.look(trunk)
    assert "knn" not in figures and np.isfinite(figures[name])
    assert figures[name] == look.look(trunk)[name], "the same images and views every time"
    hook = TrainingHook(look.options, None, None, 0.0)
    hook.watch = look
    for epoch, value in enumerate([0.2, 0.5, 0.4], 1):
        hook._compare_with_best(epoch, {"loss": 1.0, name: value})
    assert hook.best == {"epoch": 2, name: 0.5}


def test_a_score_without_proof_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unproven("knn") is None
    monkeypatch.setattr(watch_scores, "PASSED", ())
    text = unproven("rankme")
    assert text is not None and "has not been shown to rank networks" in text
    monkeypatch.setattr(watch_scores, "PASSED", ("rankme",))
    assert unproven("rankme") is None
    assert "shown so far: rankme" in str(unproven("lidar"))
    best_by = next(one for one in fields(WatchOptions) if one.name == "best_by")
    assert best_by.metadata[KEY].choices == watch_scores.CHOICES
