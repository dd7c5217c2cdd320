"""The images of a report: those that cannot be read are left out and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.analysis.sampling import open_sample


@pytest.mark.parametrize("classes", [("cat", "dog"), ("",)])
def test_unreadable_images_are_no_others(tmp_path: Path, classes: tuple[str, ...]) -> None:
    for label, name in enumerate(classes):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((8, 8, 3), 10 + 100 * label + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{label}{number}.png")
    for path in sorted(tmp_path.rglob("*2.png")):
        path.write_bytes(b"damaged")
    sample, problem = open_sample("folder", str(tmp_path), "train", 100)
    assert sample is not None
    names = [item.name for item in sample.labelled]
    assert len(names) == 5 * len(classes) and not any(name.endswith("2.png") for name in names)
    assert len({np.asarray(item.image).tobytes() for item in sample.labelled}) == len(names)
    assert problem is not None
    assert problem.startswith(f"{len(classes)} of the {6 * len(classes)} sampled images cannot")
    assert "02.png" in problem
