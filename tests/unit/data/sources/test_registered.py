"""A data set of the user's own, by the example in docs, as an outsider would use it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl import plugins
from convit_ssl.data import open_dataset
from convit_ssl.data.sources.registered import REGISTERED, register_dataset
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.errors import UserError

EXAMPLE = Path(__file__).parents[4] / "docs" / "examples" / "own_data.py"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_left_out", [])
    monkeypatch.delitem(sys.modules, "own_data", raising=False)
    before = dict(REGISTERED)
    shutil.copy(EXAMPLE, tmp_path)
    for date in ("2024-05-01", "2024-05-02", "2024-05-03"):
        for number, kind in enumerate(("treated", "control")):
            path = tmp_path / "plates" / date / f"{kind}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 9, 3), 50 + 99 * number, np.uint8)).save(path)
    yield tmp_path
    REGISTERED.clear()
    REGISTERED.update(before)


def test_the_example_is_opened_by_name(place: Path) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
    words = ["config=convit_dino", "plugins=own_data.py", "data=plates", "data_dir=plates"]
    tree = compose_experiment(words).tree
    assert (tree.data.name, tree.data_dir) == ("plates", "plates")
    train = open_dataset("plates", "plates", "train")
    val = open_dataset("plates", "plates", "val")
    assert (len(train), len(val)) == (4, 2)
    assert list(val.classes) == list(train.classes) == ["control", "treated"]
    image, target, _ = train[0]
    assert (np.asarray(image).shape, train.classes[target]) == ((9, 9, 3), "control")


def test_mistakes_get_one_message(place: Path) -> None:
    with pytest.raises(UserError, match="already has this name"):
        register_dataset("digits")
    register_dataset("none")(lambda folder, split: [])
    with pytest.raises(UserError, match="data=none lists no images for val"):
        open_dataset("none", None, "val")
    register_dataset("gone")(lambda folder, split: [("gone.png", None)])
    with pytest.raises(UserError, match=r"files do not exist: .*gone.png"):
        open_dataset("gone")
    with pytest.raises(UserError, match="unknown data 'nonee'; did you mean 'none'"):
        compose_experiment(["config=convit_dino", "data=nonee"])
