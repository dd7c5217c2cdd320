"""What a probe reads: a held-out part of train, and standardised rows of features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from convit_ssl.data.listing.parts import assign
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet

Rows = np.ndarray[Any, Any]


def hold_out(
    targets: Rows, share: float, seed: int, groups: Rows | None = None
) -> tuple[Rows, Rows]:
    """Split labelled rows into (fit, held out), class by class.

    Each class with two images or more gives at least one and keeps at least one.

    Args:
        targets: (N,), -1 without a label.
        share: of each class that is held out, 0..1.
        seed: of the choice.
        groups: (N,) numbers of groups, which are held out whole where there are enough of them;
            None where each image stands for itself.

    Raises:
        UserError: no class has two images, so nothing can be held out.
    """
    if groups is not None:
        whole = _hold_out_groups(targets, share, seed, groups)
        if whole is not None:
            return whole
    generator = np.random.default_rng(seed)
    fit, held = [], []
    for label in np.unique(targets[targets >= 0]):
        rows = generator.permutation(np.flatnonzero(targets == label))
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        held.append(rows[:count])
        fit.append(rows[count:])
    if not held or sum(map(len, held)) == 0:
        raise UserError(
            "no class has two labelled images, so none can be held out to choose the probe; label "
            "more images, or use convit-ssl knn"
        )
    return np.sort(np.concatenate(fit)), np.sort(np.concatenate(held))


def _hold_out_groups(
    targets: Rows, share: float, seed: int, groups: Rows
) -> tuple[Rows, Rows] | None:
    """Whole groups, None where none can be held out without a class that is left unlearned."""
    rows = np.flatnonzero(targets >= 0)
    found, numbers = np.unique(groups[rows], return_inverse=True)
    if len(found) < 2:
        return None
    names = [str(name) for name in found]
    parts, _ = assign(
        [""] * len(rows), targets[rows], numbers, names, (share, 1 - share), seed, True
    )
    held = parts == 0
    return (rows[~held], rows[held]) if held.any() and not held.all() else None


@dataclass(frozen=True)
class Standardiser:
    """Shift and scale per channel, measured on the images a probe is fitted to.

    A channel whose spread is under a thousandth of the largest is shifted only: dividing by
    almost nothing would make its noise the loudest feature.
    """

    mean: Float[Tensor, " dim"]
    scale: Float[Tensor, " dim"]

    @classmethod
    def measure(cls, features: Any, rows: Rows, standardise: bool = True) -> Standardiser:
        """From rows of (N, D) features, in float64; `standardise=False` changes nothing."""
        width = features.shape[1]
        if not standardise:
            return cls(torch.zeros(width), torch.ones(width))
        total, squares = (torch.zeros(width, dtype=torch.float64) for _ in range(2))
        for chunk in _chunks(rows, 65536):
            total += read_rows(features, chunk).double().sum(dim=0).cpu()
        mean = total / len(rows)
        for chunk in _chunks(rows, 65536):
            squares += (read_rows(features, chunk).double().cpu() - mean).square().sum(dim=0)
        spread = (squares / len(rows)).sqrt()
        flat = spread <= 1e-3 * spread.max().clamp_min(1e-30)
        return cls(mean.float(), torch.where(flat, 1.0, spread).float())


class ProbeData:
    """Standardised batches of feature columns on a device.

    Everything is moved to the device at once while it is under `memory_limit` bytes, and read
    from the file batch by batch above.

    Args:
        features: images.
        columns: which features.
        fit_rows: the rows that the standardisation is measured on.
        standardise: shift and scale each channel; off leaves features as they are.
        device: where batches go.
        memory_limit: bytes.
    """

    def __init__(
        self,
        features: FeatureSet,
        columns: Sequence[str],
        fit_rows: Rows,
        standardise: bool = True,
        device: torch.device | str = "cpu",
        memory_limit: int = 2 << 30,
    ) -> None:
        self.device = torch.device(device)
        self.standardisers = {
            name: Standardiser.measure(features.column(name), fit_rows, standardise)
            for name in columns
        }
        self._memory_limit = memory_limit
        self._open(features)

    def of(self, features: FeatureSet) -> ProbeData:
        """Other images by the same standardisation."""
        other = object.__new__(ProbeData)
        other.device, other.standardisers = self.device, self.standardisers
        other._memory_limit = self._memory_limit
        other._open(features)
        return other

    def _open(self, features: FeatureSet) -> None:
        self._features = features
        widths = sum(len(s.mean) for s in self.standardisers.values())
        self._cached: dict[str, Tensor] | None = None
        if 4 * widths * len(features) <= self._memory_limit:
            self._cached = self._read(np.arange(len(features)))

    @property
    def in_memory(self) -> bool:
        """Whether a batch needs no file."""
        return self._cached is not None

    def batch(self, rows: Rows) -> dict[str, Tensor]:
        """Column name -> (len(rows), width) on the device."""
        if self._cached is None:
            return self._read(rows)
        index = torch.from_numpy(rows).to(self.device)
        return {name: tensor[index] for name, tensor in self._cached.items()}

    def batches(self, rows: Rows, size: int = 8192) -> Iterator[tuple[Rows, dict[str, Tensor]]]:
        """All rows in order, `size` at a time."""
        for chunk in _chunks(rows, size):
            yield chunk, self.batch(chunk)

    def widths(self) -> Mapping[str, int]:
        """Channels of each column."""
        return {name: len(s.mean) for name, s in self.standardisers.items()}

    def _read(self, rows: Rows) -> dict[str, Tensor]:
        made = {}
        for name, standardiser in self.standardisers.items():
            raw = read_rows(self._features.column(name), rows).to(self.device)
            mean, scale = standardiser.mean.to(self.device), standardiser.scale.to(self.device)
            made[name] = (raw - mean) / scale
        return made


def read_rows(features: Any, rows: Rows) -> Float[Tensor, "rows dim"]:
    """Rows of a memory-mapped or in-memory array, as float32 in memory."""
    if isinstance(features, Tensor):
        return features[torch.from_numpy(rows).to(features.device)].float()
    return torch.from_numpy(np.asarray(features[rows], dtype=np.float32))


def _chunks(rows: Rows, size: int) -> Iterator[Rows]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
