"""A command looks things up once; the next one looks again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.data.listing.division import DivisionSpec
from convit_ssl.data.opening import find_listing, open_division
from convit_ssl.once import once, within_command
from tests.quick_run import TINY


def test_once_within_a_command_and_again_in_the_next() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [once("key", make), once("key", make)] == [0, 1]
    with within_command():
        assert once("key", make) == 2
        with within_command():
            assert once("key", make) == 2
        assert once("key", make) == 2
        assert once("other", make) == 3
    with within_command():
        assert once("key", make) == 4


def test_an_error_is_not_remembered() -> None:
    with within_command():
        with pytest.raises(ZeroDivisionError):
            once("key", lambda: 1 // 0)
        assert once("key", lambda: 1) == 1


def images(folder: Path, names: list[str]) -> None:
    """Small images, each another one."""
    draw = np.random.default_rng(len(names))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)


def test_a_listing_is_the_same_from_memory(tmp_path: Path) -> None:
    odd = os.fsdecode(b"b/\xff odd, \n.png")
    images(tmp_path, ["a/1.png", "a/2.png", odd])
    first = find_listing("folder", tmp_path)
    with within_command():
        found = [find_listing("folder", tmp_path) for _ in range(2)]
        found[0].files.clear()  # what one part of the command does is its own matter
        found[0].targets.clear()
        assert find_listing("folder", tmp_path) == found[1] == first


def test_a_later_command_sees_new_images(tmp_path: Path) -> None:
    """A notebook's second call, after images were added."""
    spec = DivisionSpec(holdout=0.5)
    images(tmp_path, [f"{label}/{number}.png" for label in "ab" for number in range(4)])
    counts = []
    for _ in range(2):
        with within_command():
            division = open_division("folder", tmp_path, spec)
            assert open_division("folder", tmp_path, spec) is division
            counts.append(len(division.listing.files))
        images(tmp_path, ["a/new.png", "b/new.png"])
    assert counts == [8, 10]


# Trains with the words of the command line, and prints how often each folder was listed.
COUNTING = """
import collections, json, os, sys
from convit_ssl.cli.main import run_command
listed, scandir = collections.Counter(), os.scandir
def counted(folder="."):
    if not isinstance(folder, int):
        listed[os.fspath(folder)] += 1
    return scandir(folder)
os.scandir = counted
code = run_command("train", sys.argv[1:])
print(json.dumps([code, listed]))
"""


def test_a_run_lists_its_images_once(tmp_path: Path) -> None:
    """Planning, training, evaluation while training, and what is printed at the end."""
    folders = [f"{part}/{label}" for part in ("train", "val") for label in "ab"]
    images(tmp_path / "images", [f"{folder}/{n}.png" for folder in folders for n in range(6)])
    words = [
        *TINY.replace("data=digits", "data=folder").split(), f"data_dir={tmp_path / 'images'}",
        "data.workers=0", f"run.dir={tmp_path / 'run'}", "optim.epochs=1", "optim.batch_size=4",
        "watch.every=1",
    ]  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", COUNTING, *words], capture_output=True, text=True, cwd=tmp_path
    )
    code, listed = json.loads(ran.stdout.splitlines()[-1])
    assert code == 0, ran.stdout + ran.stderr
    assert [listed.get(str(tmp_path / "images" / folder)) for folder in folders] == [1] * 4
