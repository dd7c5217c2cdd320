"""Label-free scores have the values that their papers define, and a study that judges them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from convit_ssl.cli.main import run_command
from convit_ssl.cli.study.scores import draw_settings
from convit_ssl.cli.study.scores_write import write
from convit_ssl.evaluation.label_free.ranking import Correlation, passes, rank_correlation
from convit_ssl.evaluation.label_free.report import scores_lines
from convit_ssl.evaluation.label_free.scores import (
    PASSED,
    SCORES,
    eigenvalue_decay,
    gate_motion,
    label_free_score,
    label_free_scores,
    lidar,
    two_view_retrieval,
)
from convit_ssl.evaluation.label_free.views import RandomViews
from convit_ssl.models import create_model


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_decay_of_a_power_law_is_found(alpha: float) -> None:
    orthogonal = torch.linalg.qr(drawn(400, 60).double() - drawn(400, 60).double().mean(0))[0]
    orthogonal = torch.linalg.qr(orthogonal - orthogonal.mean(0))[0]
    features = orthogonal * torch.arange(1, 61).double() ** (-alpha / 2)
    assert eigenvalue_decay(features) == pytest.approx(alpha, abs=1e-2)


def test_features_of_one_direction_have_no_decay() -> None:
    assert eigenvalue_decay(drawn(50, 1) @ drawn(1, 8)) == math.inf


def test_lidar_is_the_formula_of_its_paper() -> None:
    views = drawn(40, 3, 6).double() + 3 * drawn(40, 1, 6, seed=1).double()
    scaled = views / views.flatten(0, 1).std(dim=0).mean()
    means = scaled.mean(dim=1)
    between = torch.cov(means.T, correction=0)
    within = sum(torch.cov(view.T, correction=0) for view in scaled) / len(scaled)
    within = within + 1e-4 * torch.eye(6)
    lengths, axes = torch.linalg.eigh(within)
    root = axes @ torch.diag(lengths.rsqrt()) @ axes.T
    found = torch.linalg.eigvalsh(root @ between @ root)
    shares = found / found.sum()
    assert lidar(views) == pytest.approx(float(torch.exp(-(shares * shares.log()).sum())), rel=1e-3)
    assert lidar(7 * views) == pytest.approx(lidar(views))


def test_lidar_counts_the_directions_that_tell_images_apart() -> None:
    images = torch.zeros(200, 1, 16)
    images[..., :4] = 5 * drawn(200, 1, 4)
    assert 3.5 < lidar(images + 0.5 * drawn(200, 4, 16, seed=2)) < 6.0


def test_two_views_find_each_other_or_do_not() -> None:
    features = drawn(30, 8)
    assert two_view_retrieval(features, features) == 1.0
    assert two_view_retrieval(torch.ones(30, 8), torch.ones(30, 8)) == 0.0
    assert two_view_retrieval(features, features.roll(1, 0)) == 0.0


def test_gates_that_moved_are_measured() -> None:
    small = {"embed_dim": 32, "depth": 3, "num_gpsa_layers": 2, "img_size": 16, "patch_size": 8}
    model = create_model("convit_nano", num_classes=0, **small)
    assert gate_motion(model) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for block in model.blocks[:2]:
            block.attn.gating_param.fill_(-20.0)  # type: ignore[union-attr,operator]
    assert gate_motion(model) == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=1e-4)
    assert gate_motion(torch.nn.Linear(2, 2)) is None


def test_views_are_the_same_for_the_same_seed_and_of_any_channels() -> None:
    image = np.random.default_rng(0).random((20, 24, 5), np.float32)
    views = RandomViews((16, 12), [0.5] * 5, [0.25] * 5, native=True)
    assert views(image, seed=3).shape == (4, 5, 16, 12)
    assert torch.equal(views(image, seed=3), views(image, seed=3))
    assert not torch.equal(views(image, seed=3), views(image, seed=4))


def test_rank_correlation_is_spearmans() -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(size=30)
    accuracies = scores + draw.normal(size=30)
    found = rank_correlation(scores.tolist(), accuracies.tolist())
    assert found.value == pytest.approx(stats.spearmanr(scores, accuracies).statistic)
    assert found.low < found.value < found.high
    assert rank_correlation([1.0] * 9, accuracies[:9].tolist()).value == 0.0
    with pytest.raises(ValueError, match="three pairs"):
        rank_correlation([1.0, 2.0], [1.0, 2.0])


def test_a_score_passes_on_all_collections_or_not_at_all() -> None:
    good = Correlation(0.7, 0.4, 0.9, 30)
    assert passes({"a": good, "b": good, "c": good})
    assert not passes({"a": good, "b": good})
    assert not passes({"a": good, "b": good, "c": Correlation(0.7, 0.4, 0.9, 29)})
    assert not passes({"a": good, "b": good, "c": Correlation(0.6, -0.1, 0.8, 30)})
    weak = Correlation(0.3, 0.1, 0.5, 30)
    assert not passes({"a": weak, "b": weak, "c": weak})


def test_what_passed_is_said_in_words_and_nothing_else() -> None:
    scores = dict.fromkeys(SCORES, 0.5)
    rows = [
        {"name": "raw pixels", "scores": {**scores, "gate_motion": None}},
        {"name": "untrained network", "scores": {**scores, "rankme": 3.0}},
        {"name": "mine", "scores": {**scores, "rankme": 7.0}},
    ]
    assert "None of these scores has been shown" in scores_lines(rows, ())[0]
    lines = scores_lines(rows, ("rankme", "gate_motion"))
    assert lines[0] == "RankMe: 7, above its references (raw pixels 0.5, untrained network 3)"
    assert lines[1] == "gate motion: 0.5, not above its references (untrained network 0.5)"


def test_the_command_scores_a_network_beside_its_references(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["random:convit_nano", "--img-size", "8", "--data", "digits", "--images", "60"]
    words += ["--cache", str(tmp_path / "cache"), "--json", str(tmp_path / "scores.json"), "--all"]
    assert run_command("scores", words) == 0
    said = capsys.readouterr().out
    assert "study" in said and "two-view" in said
    rows = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert [row["name"] for row in rows] == ["raw pixels", "random:convit_nano"]
    assert rows[0]["scores"]["gate_motion"] is None and rows[1]["scores"]["gate_motion"] == 0.0
    assert all(row["images"] == row["viewed"] == 60 for row in rows)
    assert run_command("scores", ["pixels", *words[1:]]) == 2
    assert "leave it out" in capsys.readouterr().err


def test_a_study_writes_its_tables_from_the_runs_that_are_there(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for data in ("a", "b", "c"):
        cells = tmp_path / data / "cells"
        cells.mkdir(parents=True)
        about = {"command": ["convit-ssl"], "hardware": {"cpu": "x", "cores": 1}}
        about |= {"versions": {}, "commit": "0"}
        (tmp_path / data / "study.json").write_text(json.dumps(about))
        for number in range(30):
            views = drawn(20, 4, 8, seed=number)
            scores = {**label_free_scores(drawn(40, 8), views), "gate_motion": number / 100}
            common = {"scores": scores, "images": 40, "tested": 10}
            cell = {
                **common, "knn": number / 20 + 0.01 * draw.random(), "linear": draw.random(),
                "untrained": {**common, "knn": 0.1, "linear": 0.1}, "seconds": 1.0,
                "settings": draw_settings(number, 8),
            }  # fmt: skip
            (cells / f"{number:03d}.json").write_text(json.dumps(cell))
        (cells / "099.json").write_text(json.dumps({"failed": "the loss is not finite"}))
    write(tmp_path, str(tmp_path / "record" / "stem"))
    found = json.loads((tmp_path / "record" / "stem" / "result.json").read_text())
    assert found["passed"] == ["gate_motion"]
    assert found["correlations"]["knn"]["gate_motion"]["a"]["rho"] == 1.0
    page = (tmp_path / "results.md").read_text()
    assert "Passed: gate motion." in page and "run 099 failed" in page
    (tmp_path / "c" / "cells" / "029.json").unlink()
    write(tmp_path, str(tmp_path / "record" / "stem"))
    assert json.loads((tmp_path / "record" / "stem" / "result.json").read_text())["passed"] == []
    assert "Not finished (30 on a, 30 on b, 29 on c)" in (tmp_path / "results.md").read_text()


def test_the_scores_that_passed_are_those_of_the_committed_study() -> None:
    """PASSED is not typed by hand: it is what the newest study of label-free scores found."""
    results = Path(__file__).parents[4] / "results"
    studies = [
        json.loads(file.read_text()) for file in sorted(results.glob("label_free_*/result.json"))
    ]
    newest = [one for one in studies if one.get("study") == "scores"][-1:]
    assert list(PASSED) == [name for one in newest for name in one["passed"]]


def test_one_score_is_that_of_all() -> None:
    features, views = drawn(40, 8), drawn(20, 4, 8, seed=1)
    model = torch.nn.Linear(2, 2)
    for name, value in label_free_scores(features, views).items():
        assert label_free_score(name, model, features, views) == value
    assert label_free_score("gate_motion", model, features) is None
    with pytest.raises(ValueError, match="needs views"):
        label_free_score("lidar", model, features)


def test_settings_of_a_run_follow_from_its_number() -> None:
    drawn_settings = [draw_settings(number, 16) for number in range(60)]
    assert drawn_settings == [draw_settings(number, 16) for number in range(60)]
    assert {one["method"] for one in drawn_settings} >= {"simclr", "dino", "swav"}
    assert all(1 <= one["epochs"] <= 16 for one in drawn_settings)
