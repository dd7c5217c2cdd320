"""One random state per sample, a function of seed, epoch and index alone.

A run that is resumed, or that has another number of loader workers or processes,
therefore sees the same augmentation of the same image in the same epoch.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

_MASK = (1 << 64) - 1


class RepeatedIndex(int):
    """An index that a sampler yields more than once in an epoch.

    ``repeat`` counts the appearances from 0, so that each is augmented anew.
    """

    repeat: int

    def __new__(cls, index: int, repeat: int = 0) -> RepeatedIndex:
        """``index`` as an int that knows how often it came before."""
        self = super().__new__(cls, index)
        self.repeat = repeat
        return self

    def __reduce__(self) -> tuple[type[RepeatedIndex], tuple[int, int]]:
        return type(self), (int(self), self.repeat)


def _mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele et al. 2014): every input bit moves every output bit."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def sample_seed(*parts: int) -> int:
    """A 63-bit seed from whole numbers, such as (seed, epoch, index, repeat)."""
    state = 0
    for part in parts:
        state = _mix(state ^ (int(part) & _MASK))
    return state >> 1


@contextlib.contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed the global states of random, numpy and torch (CPU), and put them back after.

    torchvision and timm draw from these.
    """
    import numpy as np
    import torch

    legacy = np.random.get_state()  # noqa: NPY002  the state that timm draws from
    states = random.getstate(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(states[1])
