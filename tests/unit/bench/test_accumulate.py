"""``bench accumulate``: what it times, and what it says of it."""

from __future__ import annotations

import pytest

from convit_ssl.bench import accumulate
from convit_ssl.cli.main import main

PLAN = accumulate.Plan("simclr", "nano", 4, 2, 32, 16, 0, 64, "fp32", "cpu", "cpu", 1)


def test_whole_batch_and_parts_are_timed_and_a_part_is_the_aim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def peak(measured: object, plan: accumulate.Plan, batch: int, parts: int) -> float:
        asked.append((measured, batch, parts))
        return (100.0 if measured is accumulate.peak_of_tensors else 120.0) * batch / parts

    monkeypatch.setattr(accumulate, "_in_a_process", peak)
    comparison = accumulate.compare(PLAN, 1)
    sizes = [(4, 1), (4, 2), (2, 1)]
    kinds = (accumulate.peak_of_tensors, accumulate.peak_resident)
    assert asked == [(kind, *size) for kind in kinds for size in sizes]
    title, columns, lines = accumulate.table(comparison)
    assert title == "simclr, nano, 2 x 32, batch 4, fp32"
    assert [line[0] for line in lines] == ["batch of 4", "in 2 parts", "batch of 2"]
    assert lines[0][2:] == ["1.00 x", "400", "1.00 x", "480", "1.00 x"]
    assert lines[1][3:] == ["200", "0.50 x", "240", "0.50 x"]
    assert lines[2][1:3] == ["", ""]
    assert {len(line) for line in lines} == {len(columns)}


def test_a_batch_in_parts_fits_the_memory_of_a_part() -> None:
    """The bytes of all tensors at once; enough images for views, heads and loss to weigh."""
    plan = accumulate.Plan("simclr", "nano", 64, 4, 16, 16, 0, 64, "fp32", "cpu", "cpu", 1)
    in_parts = accumulate.peak_of_tensors(plan, 64, 4)
    assert in_parts < 1.05 * accumulate.peak_of_tensors(plan, 16, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "10", "--parts", "4"], "--images 10 does not divide into --parts 4; use 8"),
        (["--parts", "1"], "--parts 1: give at least 2"),
        (["--methods", "byol"], "--methods byol: choose from barlow_twins, "),
    ],
)
def test_what_cannot_be_measured_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "accumulate", *options]) == 2
    assert message in capsys.readouterr().err
