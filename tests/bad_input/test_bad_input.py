"""Every file of the corpus: no crash, no traceback, one message that says what is wrong."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pytest
import torch

from convit_ssl.data import FaultLog, open_dataset
from convit_ssl.data.loading.samples import SampleReader, UnreadableImageError
from convit_ssl.errors import UserError
from convit_ssl.export.files import read_weights
from tests.bad_input import corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    corpus.write(folder)
    return folder


@pytest.fixture(autouse=True)
def _nothing_was_run(folder: Path) -> object:
    yield
    assert not (folder / "sprung").exists()


def check(message: str, words: str) -> None:
    assert re.search(words, message), message
    assert "Traceback" not in message
    assert len(message) < 1500


def test_the_corpus_is_large_enough() -> None:
    assert sum(len(corpus.names(kind)) for kind in corpus.KINDS) >= 150


@pytest.mark.parametrize("method", ["image", "array"])
@pytest.mark.parametrize("name", corpus.names("images"))
def test_images(name: str, method: str, folder: Path, tmp_path: Path) -> None:
    words = corpus.images()[name][1]
    reader = SampleReader([""] * 1000, fault_log=FaultLog(tmp_path / "log"))
    with pytest.raises(UnreadableImageError) as caught:
        getattr(reader, method)(str(folder / "images" / name))
    check(str(caught.value), words)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for label in range(2):
        (folder / "train" / str(label)).mkdir(parents=True)
        for number in range(3):
            image = Image.new("RGB", (8, 8), (100 * label, number, 0))
            image.save(folder / "train" / str(label) / f"{label}_{number:02d}.png")
    return folder


@pytest.mark.parametrize("name", corpus.names("lists"))
def test_lists(name: str, folder: Path, pictures: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_dataset("folder", pictures, "train", subset=f"list={folder / 'lists' / name}")
    check(str(caught.value), corpus.lists()[name][1])


@pytest.mark.parametrize("name", corpus.names("checkpoints"))
def test_checkpoints(name: str, folder: Path) -> None:
    from convit_ssl.export import load_trunk

    with pytest.raises(UserError) as caught:
        load_trunk(folder / "checkpoints" / name)
    check(str(caught.value), corpus.checkpoints("")[name][1])


def test_a_checkpoint_that_ends_anywhere_is_called_cut_short(tmp_path: Path) -> None:
    """Also within the name of a function, which an older format spells out."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, whole, _use_new_zipfile_serialization=False)
    data, path = whole.getvalue(), tmp_path / "cut.pth"
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="is cut short"):
            read_weights(path)


@pytest.mark.parametrize("name", corpus.names("configs"))
def test_configs(name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convit_ssl.engines.options.compose import compose_experiment
    from convit_ssl.engines.options.plan import make_plan

    place = tmp_path / "configs" / "config" / name
    place.parent.mkdir(parents=True)
    os.link(folder / "configs" / name, place)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        make_plan(compose_experiment([f"config={place.stem}"]))
    check(str(caught.value), corpus.configs()[name][1])


@pytest.mark.parametrize("name", corpus.names("wrong_weights"))
def test_wrong_weights(name: str, folder: Path) -> None:
    from convit_ssl.export import load_trunk

    with pytest.raises(UserError) as caught:
        load_trunk(folder / "wrong_weights" / name)
    check(str(caught.value), corpus.wrong_weights()[name][1])
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", corpus.names("results"))
def test_results(name: str, folder: Path) -> None:
    from convit_ssl.evaluation.results import read_rows

    with pytest.raises(UserError) as caught:
        read_rows([folder / "results" / name])
    check(str(caught.value), corpus.results()[name][1])


@pytest.mark.parametrize("name", corpus.names("yamls"))
def test_yamls(name: str, folder: Path) -> None:
    from convit_ssl.reading import read_yaml

    with pytest.raises(UserError) as caught:
        read_yaml(folder / "yamls" / name)
    check(str(caught.value), corpus.yamls()[name][1])


def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    from convit_ssl.export import load_trunk
    from convit_ssl.reading import read_json, read_yaml

    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "pipe", "a pipe"),
        ("/dev/zero", "a device"),
        (tmp_path, "a folder"),
    ):
        for read in (read_json, read_yaml, read_weights):
            with pytest.raises(UserError, match=words):
                read(path)
    with pytest.raises(UserError, match="a pipe"):
        load_trunk(tmp_path / "pipe")


def test_an_experiment_of_ones_own_is_held_to_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convit_ssl.engines.options.compose import compose_experiment

    (tmp_path / "configs" / "config").mkdir(parents=True)
    text = corpus.BASE + corpus.yamls()["aliases.yaml"][0].decode()
    (tmp_path / "configs" / "config" / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="expands to"):
        compose_experiment(["config=mine"])


def test_markup_and_control_characters_in_results_are_shown_as_text(tmp_path: Path) -> None:
    from rich.console import Console

    from convit_ssl.evaluation.results import read_rows, results_table

    row = {
        "name": "[red]x[/red] [link=http://a]\x1b[2J",
        "accuracy": 0.5,
        "details": {"[b": "[/b]"},
    }
    (tmp_path / "r.json").write_text(json.dumps([row]))
    out = io.StringIO()
    Console(file=out, width=200).print(results_table(read_rows([tmp_path / "r.json"])))
    assert "[red]x[/red] [link=http://a]\ufffd[2J" in out.getvalue()
    assert "[/b]" in out.getvalue()
