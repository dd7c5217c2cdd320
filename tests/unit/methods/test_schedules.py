"""Schedules against the published array, and what resuming needs of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convit_ssl.errors import UserError
from convit_ssl.methods import CosineSchedule, constant


def published(
    base: float, final: float, epochs: int, steps: int, warmup: int, start: float
) -> np.ndarray:
    """The array DINO makes ahead of training: linspace, then half a cosine."""
    rising = np.linspace(start, base, warmup * steps)
    rest = np.arange(epochs * steps - warmup * steps)
    falling = final + 0.5 * (base - final) * (1 + np.cos(math.pi * rest / max(len(rest), 1)))
    return np.concatenate((rising, falling))


values = st.floats(0, 10)


@given(
    base=values,
    final=values,
    start=values,
    epochs=st.integers(1, 12),
    steps=st.integers(1, 9),
    data=st.data(),
)
def test_equals_the_published_array(
    base: float, final: float, start: float, epochs: int, steps: int, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, epochs))
    schedule = CosineSchedule(base, final, epochs, warmup, start)
    ours = [schedule.value(step, steps) for step in range(epochs * steps)]
    np.testing.assert_allclose(
        ours, published(base, final, epochs, steps, warmup, start), atol=1e-12
    )


def test_many_steps_approach_the_value_at_an_epoch() -> None:
    schedule = CosineSchedule(1.0, 0.1, 10, 3, 0.2)
    for epoch in (0, 1, 2.5, 3, 4.75, 9.5, 10, 12):
        assert schedule.at(epoch) == pytest.approx(schedule.value(round(epoch * 10**6), 10**6))
        assert schedule.scaled(2.0).at(epoch) == pytest.approx(2 * schedule.at(epoch))


@given(
    base=values,
    final=values,
    epochs=st.floats(0.01, 100),
    share=st.floats(0, 1),
    step=st.integers(0, 10**6),
    steps=st.integers(1, 10**4),
)
def test_stays_between_its_ends(
    base: float, final: float, epochs: float, share: float, step: int, steps: int
) -> None:
    schedule = CosineSchedule(base, final, epochs, epochs * share, warmup_start=base / 2)
    lowest, highest = min(base / 2, final), max(base, final)
    assert lowest - 1e-9 <= schedule.value(step, steps) <= highest + 1e-9


@given(epoch=st.integers(0, 20), steps=st.integers(8, 500), other=st.integers(8, 500))
def test_an_epoch_is_an_epoch_whatever_its_steps(epoch: int, steps: int, other: int) -> None:
    """A run resumed on another number of processes goes on where it was."""
    schedule = CosineSchedule(0.996, 1.0, 20)
    here = schedule.value(epoch * steps, steps)
    assert here == pytest.approx(schedule.value(epoch * other, other))
    warming = CosineSchedule(1.0, 0.0, 20, 10)
    difference = warming.value(epoch * steps, steps) - warming.value(epoch * other, other)
    assert abs(difference) <= 1 / min(steps, other)


def test_teacher_temperature_and_constants() -> None:
    warming = CosineSchedule(0.07, 0.07, epochs=100, warmup_epochs=30, warmup_start=0.04)
    assert warming.value(0, 10) == pytest.approx(0.04)
    assert warming.value(299, 10) == pytest.approx(0.07)
    assert warming.value(700, 10) == pytest.approx(0.07)
    assert constant(0.3).value(10**9, 7) == 0.3


def test_past_the_end_it_stays() -> None:
    assert CosineSchedule(1, 0.25, epochs=2).value(99, 5) == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1, 0, 0), "more than 0"), ((1, 0, 2, 10), r"0\.\.epochs=2"), ((1, 0, 2, -1), "-1")],
)
def test_impossible_lengths(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CosineSchedule(*arguments)


def test_impossible_steps() -> None:
    with pytest.raises(ValueError, match="step=-1"):
        constant(1).value(-1, 3)
    with pytest.raises(ValueError, match="steps_per_epoch=0"):
        constant(1).value(0, 0)
