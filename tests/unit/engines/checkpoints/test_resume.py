"""Where a run goes on, and with what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convit_ssl.data.loading.samplers import EpochSampler
from convit_ssl.engines.checkpoints.files import checkpoint_name, write_checkpoint
from convit_ssl.engines.checkpoints.resume import (
    check_same_run,
    finished,
    flat,
    iteration_at,
    steps_taken,
)
from convit_ssl.engines.options.plan import Plan
from convit_ssl.errors import UserError
from convit_ssl.runs import RunFolder


@given(
    images=st.integers(20, 200),
    first=st.integers(1, 20),
    second=st.integers(1, 20),
    data=st.data(),
)
def test_each_image_once_when_the_batch_changes_within_an_epoch(
    images: int, first: int, second: int, data: st.DataObject
) -> None:
    """The first part with one batch and world size, the rest with others."""
    steps = data.draw(st.integers(0, images // first))
    seen = steps * first
    sampler = EpochSampler(images, seed=3, tail="drop")
    sampler.set_epoch(2, 0)
    before = list(sampler)[:seen]
    left = (images - seen) // second
    iteration = iteration_at(2, seen, images, second)
    per_epoch = images // second
    assert 2 * per_epoch <= iteration or steps > 0
    assert iteration + left == 3 * per_epoch
    after = []
    for rank in range(2 if second % 2 == 0 else 1):
        world = 2 if second % 2 == 0 else 1
        part = EpochSampler(images, seed=3, rank=rank, world_size=world, tail="drop")
        part.set_epoch(2, seen)
        after += list(part)[: left * second // world]
    assert len(set(before + after)) == len(before) + len(after)
    assert images - len(before) - len(after) < second


@given(epoch=st.integers(0, 50), images=st.integers(1, 5000), data=st.data())
def test_with_the_same_batch_the_iteration_is_what_it_was(
    epoch: int, images: int, data: st.DataObject
) -> None:
    batch = data.draw(st.integers(1, images))
    steps = data.draw(st.integers(0, images // batch))
    expected = epoch * (images // batch) + steps
    assert iteration_at(epoch, steps * batch, images, batch) == expected


def plan(options: dict[str, Any]) -> Any:
    none: Any = None
    return Plan({}, options, none, none, {}, {})


def options(lr: float, accept: tuple[str, ...] = (), **data: Any) -> dict[str, Any]:
    return {
        "optim": {"lr": lr, "betas": [0.9, 0.999]},
        "data": {"name": "digits", **data},
        "run": {"root": "x", "accept_changes": list(accept)},
    }


def test_changed_options_are_refused_by_name_and_accepted_by_name(tmp_path: Any) -> None:
    path = tmp_path / checkpoint_name(1, 10)
    entry = {"config": options(0.1), "ranks": []}
    torch.save({"convit_ssl": entry, "classy_state_dict": {}}, path)
    check_same_run(path, plan(options(0.1)))
    changed = options(0.2, subset="fraction=0.1")
    with pytest.raises(UserError) as refused:
        check_same_run(path, plan(changed))
    message = str(refused.value)
    assert "optim.lr: 0.1 then, 0.2 now" in message
    assert "run.accept_changes=[data.subset,optim.lr]" in message
    with pytest.raises(UserError, match=r"data\.subset"):
        check_same_run(path, plan(options(0.2, ("optim.lr",), subset="fraction=0.1")))
    check_same_run(path, plan(options(0.2, ("optim.lr", "data"), subset="fraction=0.1")))
    with pytest.raises(UserError, match=r"which images there are \(facts\.digest\): None then"):
        check_same_run(path, plan({**options(0.1), "facts": {"digest": "x"}}))
    now = options(0.1)
    check_same_run(path, plan({**now, "data": {**now.get("data", {}), "exif_rotation": False}}))
    another = {**options(0.1), "experiment": "convit_simclr"}
    with pytest.raises(UserError, match=r"run\.name=\.\.\., or start over .*=true$"):
        check_same_run(path, plan(another))
    with pytest.raises(UserError):  # a beginning of a word is not a section
        check_same_run(path, plan(options(0.2, ("optim.l",))))


def test_a_run_is_finished_only_with_its_last_checkpoint_whole(tmp_path: Path) -> None:
    checkpoints, wanted = tmp_path / "checkpoints", plan({"optim": {"epochs": 2}})
    path = write_checkpoint(checkpoints, checkpoint_name(2, 20), {"a": torch.zeros(9)}, 2)
    assert not finished(tmp_path, checkpoints, wanted)
    RunFolder(tmp_path).result.write_text("{}")
    assert finished(tmp_path, checkpoints, wanted)
    path.write_bytes(path.read_bytes()[:-50])
    assert not finished(tmp_path, checkpoints, wanted)


def test_steps_taken_are_not_the_steps_of_todays_batch() -> None:
    assert steps_taken({"iteration": 7, "convit_ssl": {"steps_taken": 15}}) == 15
    assert steps_taken({"iteration": 7, "convit_ssl": {}}) == 7


def test_flat_names_leaves() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [1, 2]}}}) == {"a.b": 1, "a.c.d": [1, 2]}
