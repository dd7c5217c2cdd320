"""References read the images as the network that they are compared with does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit_ssl.cli.probe import references as probe_references
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.models import convit_nano


def options(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(
        checkpoint="run", data="folder", data_dir=str(folder), seed=0, mask=None, columns=None,
        token=None, tokens=None, reference=[], references=True,
        subset=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "window", "tiles"),
    [({}, None, 0), ({"window": [-1000, 400], "tiles": 16}, (-1000.0, 400.0), 16)],
)
def test_references_have_the_window_and_the_tiles(
    tmp_path: Path, data: dict[str, Any], window: Any, tiles: int
) -> None:
    for label in "ab":
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        Image.fromarray(np.full((32, 48), 7000, np.uint16)).save(folder / "0.png")
    model: Any = convit_nano(img_size=16, patch_size=4)
    model.provenance = {"entry": {"data": {**data, "mean": [0.5] * 3}}}
    args = options(tmp_path)
    own = probe_sources.source_of(model, "own", model.provenance, args)
    found = list(probe_references.plain_references(args, own))
    assert [each.name for each in found] == ["raw pixels", "untrained network"]
    for source in found:
        assert (source.reading.window, source.reading.tiles) == (window, tiles)
        images = probe_sources.open_images(args, "train", source)
        assert len(images) == (12 if tiles else 2)
    assert own.reading == Reading.of(data)
