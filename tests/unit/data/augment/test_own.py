"""An augmentation of the user's own, by the example in docs."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit_ssl.data.augment.own import REGISTERED, register_augmentation
from convit_ssl.data.augment.spec import AugmentConfig, build_augmentation
from convit_ssl.errors import UserError

EXAMPLE = Path(__file__).parents[4] / "docs" / "examples" / "own_augmentation.py"
IMAGE = np.full((40, 40, 3), 200, np.uint8)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(REGISTERED):
        monkeypatch.delitem(REGISTERED, name)
    runpy.run_path(str(EXAMPLE))


def views(*own: str, seed: int = 3, image: Any = IMAGE, grey: bool = False) -> list[Any]:
    config = AugmentConfig.dino(32, 16, 2).adapt(jitter=0.0, solarize=0.0, grey_images=grey)
    made: Any = build_augmentation(replace(config, own=own))
    return [np.asarray(view) for view in made(image, seed=seed)]


def test_the_example_changes_each_view_alike_for_one_seed() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
    seeds = range(6)
    plain = [view for seed in seeds for view in views(seed=seed)]
    dusty = [view for seed in seeds for view in views("dust", seed=seed)]
    again = [view for seed in seeds for view in views("dust", seed=seed)]
    changed = [not np.array_equal(a, b) for a, b in zip(plain, dusty, strict=True)]
    assert sum(changed) > len(changed) / 2
    assert all(np.array_equal(a, b) for a, b in zip(dusty, again, strict=True))
    assert all(view.dtype == np.uint8 for view in dusty)


def test_mistakes_get_one_message() -> None:
    config = replace(AugmentConfig.simclr(16), own=("dast",))
    with pytest.raises(UserError, match=r"no plugin registered it \(registered: dust\)"):
        build_augmentation(config)
    with pytest.raises(UserError, match="works with augment=fast"):
        build_augmentation(replace(config, own=("dust",)), "pil")
    register_augmentation("half")(lambda pixels, random: pixels[::2])
    with pytest.raises(UserError, match="must return a uint8 array"):
        views("half")
