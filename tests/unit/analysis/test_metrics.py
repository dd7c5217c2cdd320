"""metrics.jsonl: whatever is in it, the curves that can be read come out."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from convit_ssl.analysis.metrics import (
    HeadSeries,
    Series,
    downsample,
    downsample_heads,
    read_metrics,
)
from convit_ssl.runs import RunFolder


def write(folder, *lines):
    path = folder / "metrics.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_epochs_and_evaluations_become_curves(tmp_path):
    path = write(
        tmp_path,
        {"kind": "epoch", "epoch": 1, "step": 10, "loss": 3.0, "gates": [[0.7, 0.6]]},
        {"kind": "eval", "epoch": 1, "step": 10, "knn": 0.4},
        {"kind": "epoch", "epoch": 2, "step": 20, "loss": 2.0, "gates": [[0.5, 0.4]]},
    )
    found = read_metrics(RunFolder(path.parent))
    assert found.problems == []
    assert found.series["loss"].values.tolist() == [3.0, 2.0]
    assert found.series["knn"].epochs.tolist() == [1.0]
    assert found.heads["gates"].values.shape == (2, 1, 2)
    assert found.last_epoch == 2


def test_damaged_lines_are_named_and_skipped(tmp_path):
    path = write(
        tmp_path,
        {"kind": "epoch", "epoch": 1, "loss": 3.0},
        '{"kind": "epoch", "epoch": 2, "lo',
        "[1, 2]",
        {"kind": "epoch", "epoch": 3, "loss": 1.0},
        "\x00\x00\x00",
    )
    found = read_metrics(RunFolder(path.parent))
    assert found.series["loss"].values.tolist() == [3.0, 1.0]
    assert "JSON objects: 2, 3, 5" in found.problems[0]


def test_a_resumed_run_shows_the_later_measurement(tmp_path):
    rows = [{"kind": "epoch", "epoch": e, "loss": v} for e, v in ((1, 5.0), (2, 4.0), (2, 3.5))]
    found = read_metrics(RunFolder(write(tmp_path, *rows).parent))
    assert found.series["loss"].values.tolist() == [5.0, 3.5]
    assert "repeated after a restart" in found.problems[0]


def test_steps_stand_in_before_the_first_epoch_ends(tmp_path):
    rows = [{"kind": "step", "epoch": 1, "step": s, "loss": 9.0 - s} for s in range(4)]
    found = read_metrics(RunFolder(write(tmp_path, *rows).parent))
    np.testing.assert_allclose(found.series["loss"].epochs, [0.25, 0.5, 0.75, 1.0])
    fractions = [{"kind": "step", "epoch": e, "step": e, "loss": 1.0} for e in (0.1, 0.6)]
    found = read_metrics(RunFolder(write(tmp_path, *fractions).parent))
    np.testing.assert_allclose(found.series["loss"].epochs, [0.1, 0.6])


def test_nan_is_kept_and_named(tmp_path):
    rows = [
        '{"kind": "epoch", "epoch": 1, "loss": 2}',
        '{"kind": "epoch", "epoch": 2, "loss": NaN}',
    ]
    found = read_metrics(RunFolder(write(tmp_path, *rows).parent))
    assert "loss is not finite in 1 of 2 measurements, first at epoch 2" in found.problems[0]


def test_values_of_another_type_or_range_are_left_out_and_named(tmp_path):
    rows = [
        {"kind": "epoch", "epoch": 1, "loss": 2.0, "knn": 0.5, "knn_name": "5-NN"},
        {"kind": "epoch", "epoch": 2, "loss": "1.5", "knn": 50.0},
        {"kind": "epoch", "epoch": 3, "loss": None, "knn": 0.75},
        {"kind": "epoch", "epoch": 4, "loss": [1], "knn": -1},
    ]
    found = read_metrics(RunFolder(write(tmp_path, *rows).parent))
    assert found.series["loss"].values.tolist() == [2.0]
    assert found.series["knn"].values.tolist() == [0.5, 0.75]
    assert found.problems == [
        "loss: 2 of 4 measurements are not numbers and are left out.",
        "knn: 2 of 4 measurements are not numbers from 0 to 1 and are left out.",
    ]


def test_missing_and_empty_files_are_problems(tmp_path):
    assert "No such file" in read_metrics(RunFolder(tmp_path)).problems[0]
    assert "no measurements yet" in read_metrics(RunFolder(write(tmp_path, "").parent)).problems[0]


def test_gates_of_another_shape_are_left_out(tmp_path):
    rows = [
        {"epoch": 1, "gates": [[0.1, 0.2]]},
        {"epoch": 2, "gates": [[0.1]]},
        {"epoch": 3, "gates": "?"},
        {"epoch": 4, "gates": [[0.3, None]]},
    ]
    found = read_metrics(RunFolder(write(tmp_path, *rows).parent))
    assert found.heads["gates"].epochs.tolist() == [1.0, 4.0]
    assert np.isnan(found.heads["gates"].values[1, 0, 1])
    assert "2 of 4 measurements" in found.problems[0]


@settings(max_examples=30, deadline=None)
@given(points=st.integers(1, 3000), most=st.integers(4, 400), seed=st.integers(0, 9))
def test_downsampling_keeps_ends_and_extremes(points, most, seed):
    values = np.random.default_rng(seed).normal(size=points)
    short = downsample(Series(np.arange(points, dtype=float), values), most)
    assert len(short.values) <= max(most, 4)
    assert short.values.min() == values.min()
    assert short.values.max() == values.max()
    assert short.epochs[[0, -1]].tolist() == [0.0, points - 1.0]
    heads = HeadSeries(np.arange(points, dtype=float), np.zeros((points, 2, 3)))
    assert downsample_heads(heads, most).epochs[-1] == points - 1


def test_downsampling_survives_nan():
    values = np.full(1000, np.nan)
    values[500] = 3.0
    assert 3.0 in downsample(Series(np.arange(1000.0), values), 50).values
