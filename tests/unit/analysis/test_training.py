"""What is written while training: right, ready for JSON, and cheap."""

from __future__ import annotations

import json
import statistics
import time

import numpy as np
import pytest
import torch

from convit_ssl.analysis import training
from convit_ssl.analysis.locality import measure_nonlocality, positional_attention
from convit_ssl.analysis.metrics import read_metrics
from convit_ssl.models import create_model
from convit_ssl.runs import RunFolder


class Writer:
    def __init__(self):
        self.scalars, self.images = {}, {}

    def add_scalar(self, tag, scalar_value, global_step):
        self.scalars[tag] = scalar_value

    def add_image(self, tag, img_tensor, global_step):
        self.images[tag] = img_tensor


def test_summary_goes_through_metrics_jsonl_unchanged(tmp_path):
    model = create_model("convit_nano", num_classes=0)
    with torch.no_grad():
        model.blocks[0].attn.pos_proj.weight[0, 2] = 1.0  # no peak: no centre, no width
    images = torch.randn(2, 3, 32, 32)
    summary = training.training_summary(model, images)
    line = json.dumps({"kind": "epoch", "epoch": 1, **summary}, allow_nan=False)
    (tmp_path / "metrics.jsonl").write_text(line)
    read = read_metrics(RunFolder(tmp_path))
    assert read.problems == []
    gates = positional_attention(model).gates
    np.testing.assert_allclose(read.heads["gates"].values[0], gates, atol=1e-6)
    expected = measure_nonlocality(model, images).mixed
    np.testing.assert_allclose(read.heads["nonlocality"].values[0], expected, atol=1e-6)
    assert np.isnan(read.heads["widths"].values[0, 0, 0])


def test_summary_leaves_the_model_as_it_was():
    model = create_model("convit_nano", num_classes=0).train()
    before = torch.get_rng_state()
    training.training_summary(model, torch.zeros(1, 3, 32, 32))
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_tensorboard_gets_scalars_and_a_picture():
    writer, model = Writer(), create_model("convit_nano", num_classes=0)
    summary = training.training_summary(model)
    training.write_summary(writer, summary, 3, model)
    assert writer.scalars["locality_gate/layer_02"] == pytest.approx(0.731059, abs=1e-5)
    assert writer.scalars["locality_gate/layer_03_head_1"] == pytest.approx(0.731059, abs=1e-5)
    assert writer.scalars["locality_centre_distance/layer_00"] == pytest.approx(0.5**0.5, abs=1e-5)
    picture = writer.images["locality/heads"]
    assert picture.dtype == np.uint8
    assert picture.shape == (3, 4 * 48, 4 * 48)


def test_real_tensorboard_takes_it(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    model = create_model("convit_nano", num_classes=0)
    writer = tensorboard.SummaryWriter(str(tmp_path))
    training.write_summary(writer, training.training_summary(model), 1, model)
    writer.close()
    assert next(tmp_path.iterdir()).stat().st_size > 1000


def test_deit_has_an_empty_summary():
    writer, model = Writer(), create_model("deit_nano", num_classes=0)
    summary = training.training_summary(model)
    assert summary == {"gates": [], "centre_distances": [], "widths": []}
    training.write_summary(writer, summary, 1, model)
    assert writer.scalars == {}
    assert writer.images == {}


def test_costs_less_than_two_per_cent_of_an_epoch_on_digits():
    """An epoch of the smallest built-in set is 15 steps of 64 images of the smallest model."""
    model = create_model("convit_nano", num_classes=10).train()
    images = torch.randn(64, 3, 32, 32)

    def step():
        model(images).logsumexp(1).sum().backward()

    def summary():
        training.write_summary(Writer(), training.training_summary(model), 1, model)

    def seconds(work):
        work()
        times = []
        for _ in range(5):
            started = time.process_time()
            work()
            times.append(time.process_time() - started)
        return statistics.median(times)

    share = seconds(summary) / (15 * seconds(step))
    assert share < 0.02, f"{100 * share:.2f} %"
