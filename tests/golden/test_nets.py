"""Options, checkpoint keys, draws, help texts and losses are what they were.

After a change that is meant to change one: `python -m tests.golden.make_goldens NAME`.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden.nets import NETS, python_version, read

# How far values may lie apart: resampling differs by a level between builds of OpenCV and Pillow,
# and 20 steps in float32 amplify the last digit.
TOLERANCE = {"draws": {"abs": 0.04}, "steps": {"rel": 2e-3}}


@pytest.mark.parametrize("net", NETS)
def test_nothing_changes_unsaid(net: str) -> None:
    expected = read(net)
    if net == "help" and expected["python"] != python_version():
        pytest.skip("argparse lays help out as this Python does")
    found = NETS[net]()
    advice = f"if that is meant, python -m tests.golden.make_goldens {net}"
    assert list(found) == list(expected), advice
    for name, value in found.items():
        wanted = expected[name]
        if net in TOLERANCE:
            value, wanted = numbers(value), numbers(wanted)
            assert value == pytest.approx(wanted, **TOLERANCE[net]), f"{name}: {advice}"
        else:
            assert value == wanted, f"{name}: {advice}"


def numbers(value: Any) -> list[float]:
    """All numbers of an entry, in order."""
    if isinstance(value, dict):
        return [number for child in value.values() for number in numbers(child)]
    if isinstance(value, list):
        return [number for child in value for number in numbers(child)]
    return [float(value)]
