import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classy_vision.generic.util import load_checkpoint
from vissl.config import AttrDict
from vissl.utils.cluster_utils import ClusterAssignment, ClusterAssignmentLoader

from convit_ssl.errors import UserError
from convit_ssl.export.files import read_weights


class Evil:
    """Unpickling it would make a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_vissls_own_types_load(tmp_path: Path) -> None:
    content = {
        "config": AttrDict({"MODEL": {"TRUNK": {"NAME": "convit_ssl"}}, "LR": [1, 2]}),
        "losses": [np.float64(1.5), np.float32(2.0), np.int64(3)],
        "weights": OrderedDict(a=torch.ones(2)),
    }
    torch.save(content, tmp_path / "model.torch")

    loaded = load_checkpoint(str(tmp_path / "model.torch"))

    assert loaded["config"] == content["config"]
    assert loaded["losses"] == content["losses"]
    assert loaded["weights"]["a"].equal(torch.ones(2))


def test_they_still_load_after_weights_were_read(tmp_path: Path) -> None:
    torch.save({"losses": [np.float64(1.5)]}, tmp_path / "model.torch")
    before = set(torch.serialization.get_safe_globals())

    read_weights(tmp_path / "model.torch")

    assert set(torch.serialization.get_safe_globals()) == before
    assert load_checkpoint(str(tmp_path / "model.torch")) == {"losses": [1.5]}


def test_cluster_assignments_keep_their_configuration(tmp_path: Path) -> None:
    assignment = ClusterAssignment(
        config=AttrDict({"DATA": {"TRAIN": {}}}), cluster_assignments={"train": {0: 1}}
    )
    ClusterAssignmentLoader.save_cluster_assignment(str(tmp_path), assignment)

    loaded = ClusterAssignmentLoader.load_cluster_assigment(
        str(tmp_path / "cluster_assignments.torch")
    )

    assert loaded.config.DATA.TRAIN == {}
    assert loaded.cluster_assignments == {"train": {0: 1}}


def test_a_file_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"classy_state_dict": {}, "extra": Evil()}, "foreign.torch")

    with pytest.raises(UserError, match=r"foreign.torch holds a Python object of type posix.mkdir"):
        load_checkpoint("foreign.torch")

    assert not Path("pwned").exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "model_phase3.torch"
    torch.save({"weights": torch.ones(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])

    with pytest.raises(UserError, match=r"model_phase3.torch is not a complete checkpoint"):
        load_checkpoint(str(path))


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.torch").write_text("hello, these are notes")

    with pytest.raises(UserError, match=r"notes.torch is not a complete checkpoint"):
        load_checkpoint(str(tmp_path / "notes.torch"))
