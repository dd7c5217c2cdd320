"""Figures on val while labels are learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from convit_ssl.adapters.inputs import open_inputs
from convit_ssl.adapters.meters import Accuracy
from convit_ssl.engines.callbacks.val_figures import accuracy_figures, described
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import make_plan


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_figures_are_scikit_learns(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(60, 2, classes, generator=generator)
    target = torch.randint(0, classes, (60,), generator=generator) // 2 * 2 % classes
    target[:classes] = torch.arange(classes)
    meter = Accuracy()
    for part in torch.arange(60).split(17):
        meter.update(logits[part], target[part], index=part)
    values = meter.value
    assert ("top5" in values) == (classes > 5)
    assert ("auc" in values) == (classes == 2)
    for number in range(2):
        guess = logits[:, number].argmax(-1)
        assert values["top1"][number] == pytest.approx(
            float((guess == target).float().mean()), abs=1e-6
        )
        balanced = balanced_accuracy_score(target, guess)
        assert values["balanced_accuracy"][number] == pytest.approx(balanced, abs=1e-6)
        recall = recall_score(target, guess, average=None)
        assert values["recall"][number] == pytest.approx(recall, abs=1e-6)
        if classes == 2:
            area = roc_auc_score(target, logits[:, number, 1] - logits[:, number, 0])
            assert values["auc"][number] == pytest.approx(area, abs=1e-6)


def test_unreadable_and_held_out_images_are_in_no_figure_of_val() -> None:
    meter = Accuracy(num_holdout=2)
    logits = torch.eye(3)[[0, 1, 0, 1, 2, 1]]
    target = torch.tensor([1, 1, 0, 1, -1, -1])
    meter.update(logits, target, index=torch.arange(6))
    values = meter.value
    assert values["holdout"] == [0.5] and values["top1"] == [1.0]
    assert values["unreadable"] == [2]
    assert values["recall"] == [[1.0, 1.0, None]]
    figures = accuracy_figures(values, ["a", "b", "c"])
    assert figures["per_class"] == {"a": 1.0, "b": 1.0, "c": None}
    text = "\n".join(described(figures))
    assert "balanced accuracy 100.00 %" in text and "2 images of val could not be read" in text


def test_no_other_image_stands_for_an_unreadable_one_of_val(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    for number, array in enumerate(pixels):
        folder = tmp_path / "images" / ("val" if number % 2 else "train") / "ab"[number % 4 // 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / f"{number:02d}.png")
    broken = tmp_path / "images/val/a/05.png"
    broken.write_bytes(broken.read_bytes()[:50])
    words = f"""config=convit_supervised data=folder data_dir={tmp_path}/images run=cpu
    trunk=convit_nano data.workers=0 trunk.patch_size=4 crops.global_size=8 optim.batch_size=10
    run.dir={tmp_path}/run data.max_corrupt=0.2"""
    (tmp_path / "run").mkdir()
    from vissl.config import AttrDict

    options = AttrDict(make_plan(compose_experiment(words.split())).options)
    loader = open_inputs(options, torch.device("cpu")).loader("TEST", pin_memory=False)
    targets = torch.cat([batch[1] for batch in loader])
    assert sorted(targets.tolist()) == [-1] + 9 * [0] + 10 * [1]
    faults = (tmp_path / "run/unreadable.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in faults] and "05.png" in faults[0]
