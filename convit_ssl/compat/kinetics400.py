"""``torchvision.datasets.kinetics.Kinetics400`` under its old name.

Broke: ``ImportError: cannot import name 'Kinetics400'`` while ClassyVision is imported.
Since: torchvision 0.14 (removed; ``Kinetics`` took its place in 0.12)
Upstream: classy_vision/dataset/classy_kinetics400.py:11
Goes when: ClassyVision imports ``Kinetics``.
"""

from __future__ import annotations

from types import ModuleType


def apply(module: ModuleType) -> None:
    """Name ``Kinetics`` also ``Kinetics400``."""
    if not hasattr(module, "Kinetics400"):
        module.Kinetics400 = module.Kinetics  # type: ignore[attr-defined]
