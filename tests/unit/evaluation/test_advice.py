"""What to try next is something else than what was tried."""

from __future__ import annotations

import pytest

from convit_ssl.evaluation.advice import Seen, next_steps
from convit_ssl.evaluation.verdict import Verdict


@pytest.mark.parametrize("method", ["lejepa", "vicreg", "dino"])
def test_the_method_that_trained_is_not_recommended(method: str) -> None:
    verdict = Verdict("not better", "", "accuracy", "kNN", {}, labels=100, tested="50 images")
    told = " ".join(next_steps(verdict, Seen(rank=2.0, width=128, method=method)))
    assert "spreads features (barlow_twins" in told and method not in told


def test_it_is_read_from_a_checkpoint() -> None:
    assert Seen.of_run({"config": {"method": {"name": "lejepa"}}}).method == "lejepa"


def test_a_test_that_a_reference_passes_whole_is_named() -> None:
    verdict = Verdict(
        "not better", "", "accuracy", "kNN", {}, labels=54, tested="18 images", saturated=True
    )
    (told,) = next_steps(verdict, Seen(steps=3, rank=2.0, width=128, images=54))
    assert "cannot show a gain" in told
