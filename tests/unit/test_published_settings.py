"""Every published experiment's settings on ImageNet, against a table that names the source.

tests/published/settings.csv has a row for each option. Where we differ on purpose, ``ours`` has
our value and ``deviation`` the row of docs/DEVIATIONS.md that gives the reason.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden.nets import EXPERIMENTS, published_plan

ROOT = Path(__file__).parents[2]
with (ROOT / "tests/published/settings.csv").open(newline="", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))

# What each kind of experiment has to have a row for.
ALWAYS = {"optim.name", "optim.warmup_epochs", "optim.epochs", "optim.batch_size"}
ALWAYS |= {"optim.weight_decay", "crops.global_scale"}
PRETRAINING = {
    "dino",
    "simclr",
    "moco_v3",
    "swav",
    "barlow_twins",
    "vicreg",
    "diet",
    "lejepa",
    "ibot",
}
# Options of a method that name it, or that no publication has a value for.
OWN = {"name", "test_every", "holdout", "num_classes", "scale"}


def read(text: str) -> Any:
    """A value of the table; 1e-6 is a number here, which YAML 1.1 reads as a word."""
    value = yaml.safe_load(text)
    if isinstance(value, list):
        return [float(number) for number in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@cache
def options(experiment: str) -> dict[str, Any]:
    return published_plan(experiment).options


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['experiment']}-{row['option']}")
def test_a_setting_is_the_published_one_or_a_stated_deviation(row: dict[str, str]) -> None:
    found: Any = options(row["experiment"])
    for part in row["option"].split("."):
        found = found[part]
    expected = read(row["ours"] or row["published"])
    if expected is None or isinstance(expected, (bool, str)):
        assert found == expected, row["source"]
    else:
        assert found == pytest.approx(expected), row["source"]
    assert row["source"]
    assert bool(row["ours"]) == bool(row["deviation"])


# What is no setting: how something is computed.
COMPUTED = (
    "KoLeo",
    "batch normalisation in `convit_linear`",
    "gradient accumulation (`optim.accumulate`)",
    "position embeddings at another size",
)


@pytest.mark.parametrize(
    "name", sorted({*COMPUTED, *(row["deviation"] for row in ROWS if row["deviation"])})
)
def test_deviations_of_the_table_are_explained(name: str) -> None:
    lines = (ROOT / "docs/DEVIATIONS.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| {name} |")]
    assert all(len(cell.strip()) > 10 for cell in row.split("|")[2:5])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_table_is_whole(experiment: str) -> None:
    named = {row["option"] for row in ROWS if row["experiment"] == experiment}
    assert named >= ALWAYS
    method = options(experiment)["method"]
    if method["name"] in PRETRAINING:
        assert {f"method.{key}" for key in method if key not in OWN} <= named
