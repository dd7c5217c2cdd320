"""The table of a baselines study: means, paired differences and what is said of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convit_ssl.cli.study.baselines_rows import LABELS, RESNET, beside, trunks_of
from convit_ssl.cli.study.baselines_write import (
    _against_deit,
    _between,
    _between_page,
    _deit_page,
    _judged,
    _place,
    _references,
)
from convit_ssl.evaluation.paired import Predictions
from convit_ssl.evaluation.studies.baselines import (
    CLASSIFIER,
    KNN,
    LINEAR,
    differences,
    headline,
    markdown,
    summarise,
    verdict,
)

TRUTH = np.arange(400) % 2
CLASSES = ["whole", "broken"]


def cell(
    row: str, seed: int | None, wrong: int, probe: str = LINEAR, offset: int = 0
) -> dict[str, Any]:
    predicted = TRUTH.copy()
    rows = (np.arange(wrong) * 7 + offset) % len(TRUTH)
    predicted[rows] = 1 - predicted[rows]
    said = {"predicted": predicted.tolist(), "scores": (predicted - 0.5).tolist()}
    probes = {KNN: {"predicted": predicted.tolist()}, probe: said}
    return {"row": row, "seed": seed, "core_seconds": 60.0 * ((seed or 0) + 1), "probes": probes}


def three(row: str, wrong: tuple[int, int, int], probe: str = LINEAR) -> list[dict[str, Any]]:
    return [cell(row, seed, count, probe, 3 * seed) for seed, count in enumerate(wrong)]


def test_a_row_is_the_mean_over_seeds_with_each_seed_kept() -> None:
    (row,) = summarise(three("simclr", (40, 80, 60)), TRUTH, CLASSES, False)
    found = row["probes"][LINEAR]["accuracy"]
    assert found["values"] == pytest.approx([0.9, 0.8, 0.85])
    assert found["mean"] == pytest.approx(0.85)
    assert found["sd"] == pytest.approx(0.05)
    # t(0.975, 2) = 4.3027
    half = 4.3027 * 0.05 / 3**0.5
    assert found["interval_95"] == pytest.approx([0.85 - half, 0.85 + half], abs=1e-4)
    assert row["core_minutes"] == 2.0
    assert row["probes"][LINEAR]["auc"]["mean"] == pytest.approx(0.85)


def test_recall_of_each_class_stands_beside_balanced_accuracy() -> None:
    (row,) = summarise(three("simclr", (0, 0, 0)), TRUTH, CLASSES, True)
    found = row["probes"][LINEAR]
    assert found["recall"]["broken"]["values"] == [1.0, 1.0, 1.0]
    assert found["balanced_accuracy"]["mean"] == 1.0


def test_a_row_that_learned_labels_is_judged_by_its_own_classifier() -> None:
    assert headline(three("labels alone", (1, 2, 3), CLASSIFIER)) == CLASSIFIER
    assert headline(three("simclr", (1, 2, 3))) == LINEAR


def test_better_needs_both_seeds_and_images_to_say_so() -> None:
    cells = [*three("simclr", (20, 24, 22)), cell("raw pixels", None, 120)]
    predictions = Predictions(TRUTH, {})
    found = differences(cells, "simclr", ["raw pixels"], predictions, False)
    assert found["raw pixels"].is_better
    text = verdict(found, "simclr", 3, predictions, 100, False)
    assert text.startswith("simclr: better than raw pixels")
    assert text.endswith("(mean of 3 seeds)")
    # The same mean, seeds far apart: nothing is called better.
    wide = [*three("simclr", (0, 0, 66)), cell("raw pixels", None, 40)]
    found = differences(wide, "simclr", ["raw pixels"], predictions, False)
    assert found["raw pixels"].low < 0 < found["raw pixels"].value
    assert "not better than raw pixels" in verdict(found, "simclr", 3, predictions, 100, False)


def test_a_row_of_one_seed_is_compared_with_every_seed_of_the_other() -> None:
    cells = [*three("simclr", (20, 30, 40)), cell("raw pixels", None, 100)]
    found = differences(cells, "simclr", ["raw pixels"], Predictions(TRUTH, {}), False)
    assert found["raw pixels"].value == pytest.approx((80 + 70 + 60) / 3 / 400)


def test_rows_with_seeds_of_their_own_are_paired_seed_by_seed() -> None:
    cells = three("simclr", (20, 40, 60)) + three("untrained", (40, 60, 80))
    found = differences(cells, "simclr", ["untrained"], Predictions(TRUTH, {}), False)
    assert found["untrained"].value == pytest.approx(0.05)
    assert found["untrained"].p_value <= 1.0


def test_the_page_has_every_row_and_says_how_to_get_what_is_missing() -> None:
    cells = [*three("simclr", (20, 24, 22)), cell("raw pixels", None, 120)]
    predictions = Predictions(TRUTH, {})
    rows = summarise(cells, TRUTH, CLASSES, False)
    found = {"simclr": differences(cells, "simclr", ["raw pixels"], predictions, False)}
    page = "\n".join(markdown(rows, found, ["said"], {"frozen network": "get it there"}, False))
    assert "| simclr | " in page and "| raw pixels | " in page
    assert "| frozen network | not measured: get it there |" in page
    assert "- said" in page
    widths = {line.count("|") for line in page.splitlines()[:6] if line.startswith("|")}
    assert len(widths) == 1


def test_methods_are_compared_with_each_other() -> None:
    cells = [
        *three("dino", (20, 24, 22)),
        *three("simclr", (30, 34, 31)),
        cell("raw pixels", None, 9),
    ]
    study: Any = SimpleNamespace(
        cells=cells, args=SimpleNamespace(methods=["dino", "simclr", "not measured yet"])
    )
    found = _between(study, Predictions(TRUTH, {}), False)
    assert {name: list(others) for name, others in found.items()} == {"simclr": ["dino"]}
    page = "\n".join(_between_page(found))
    assert f"| simclr | dino | {found['simclr']['dino'].in_points()} |" in page
    assert _between_page({}) == []


def test_each_row_of_deit_stands_below_the_same_row_of_convit() -> None:
    fine_tuned = "pretrained (dino), fine-tuned"
    of_convit = ["untrained", "simclr", "dino", LABELS]
    rows = ["raw pixels", "untrained", "untrained, DeiT", "frozen net", "simclr", "simclr, DeiT"]
    rows += ["dino", "dino, DeiT", LABELS, "labels alone, DeiT", RESNET]
    rows += [fine_tuned, beside(fine_tuned, "deit_nano")]
    assert set(rows) >= {beside(row, "deit_nano") for row in of_convit}
    study: Any = SimpleNamespace(args=SimpleNamespace(methods=["simclr", "dino"]))
    measured = [row for row in rows if "DeiT" not in row] + [row for row in rows if "DeiT" in row]
    for order in (measured, measured[::-1]):
        assert sorted(order, key=lambda row: _place(study, row)) == rows


def test_deit_stands_beside_convit_and_is_no_reference_of_the_verdict() -> None:
    args = SimpleNamespace(methods=["simclr"], size="nano", deit=True)
    convit, deit = trunks_of(args)  # type: ignore[arg-type]
    assert (convit, deit) == ("convit_nano", "deit_nano")
    assert beside(LABELS, deit) == "labels alone, DeiT"
    rows = {
        "simclr": (40, 80, 60),
        "simclr, DeiT": (60, 100, 80),
        "labels alone, ConViT": (9, 9, 9),
    }
    cells = [one for row, wrong in rows.items() for one in three(row, wrong)]
    study: Any = SimpleNamespace(args=args, cells=cells)
    assert _judged(study) == ["simclr"]
    assert _references(study, "simclr") == ["labels alone, ConViT"]
    found = _against_deit(study, Predictions(TRUTH, {}), False)
    assert list(found) == ["simclr"]
    assert found["simclr"].value == pytest.approx(0.05)
    assert "| simclr | +5.0 (95 % interval" in "\n".join(_deit_page(found))
