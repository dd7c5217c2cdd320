"""A signal that stops a command gets one message, which says what is left, and 128 + its number."""

from __future__ import annotations

import importlib
import os
import re
import signal
from pathlib import Path

import pytest
import torch

from convit_ssl.cli.main import COMMANDS, run_command
from convit_ssl.export.trunk import export_trunk
from convit_ssl.models import ConViT, create_config

NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
UNFINISHED = "; nothing half-written is left"


@pytest.fixture(autouse=True)
def _with_a_terminal() -> object:
    """The tests may run under nohup, where SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def named(number: signal.Signals) -> str:
    return "Ctrl-C" if number == signal.SIGINT else number.name


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_that_it_was_stopped(
    name: str,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(number)
    if before == signal.SIG_DFL:  # would end the tests
        signal.signal(number, lambda *_: pytest.fail("the command does not listen"))
    listening = signal.getsignal(number)

    def run(args: object) -> int:
        os.kill(os.getpid(), number)
        raise AssertionError("no signal came")

    command = importlib.import_module(f"convit_ssl.cli.{name}_command")
    monkeypatch.setattr(command, "add_arguments", lambda parser: None)
    monkeypatch.setattr(command, "run", run)
    try:
        assert run_command(name, []) == 128 + number
        assert signal.getsignal(number) == listening
    finally:
        signal.signal(number, before)
    said = capsys.readouterr().err
    assert re.fullmatch(rf"convit-ssl {name}: stopped by {named(number)}(; .*)?\n", said)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    config = create_config("convit_nano", img_size=32, patch_size=8, depth=2, num_gpsa_layers=1)
    export_trunk(ConViT(config), ["safetensors"], folder, name="whole")
    return folder / "whole.safetensors"


WRITERS = {
    "export": ["--to", "safetensors", "timm", "hf", "--name", "again", "--out", "OUT"],
    "import": ["--out", "OUT/again.safetensors"],
    "features": ["--data", "digits", "--subset", "per_class=2", "--device", "cpu", "--workers",
                 "0", "--out", "OUT"],
}  # fmt: skip
WITHIN = {
    "export": "convit_ssl.export.trunk.write_text",
    "import": "safetensors.torch.save_file",
    "features": "convit_ssl.evaluation.features.extraction._fill",
}


@pytest.mark.parametrize("number", NUMBERS[:2])
@pytest.mark.parametrize("name", WRITERS)
def test_what_was_being_written_is_gone(
    name: str,
    number: signal.Signals,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the middle of writing: neither a file that looks whole nor a temporary one stays."""
    out = tmp_path / "out"
    out.mkdir()
    seen: list[Path] = []
    before = signal.signal(number, lambda *_: pytest.fail("the command does not listen"))

    def stop(*args: object, **more: object) -> None:
        seen.extend(path for path in out.rglob("*") if path.is_file())
        os.kill(os.getpid(), number)

    monkeypatch.setattr(WITHIN[name], stop)
    words = [word.replace("OUT", str(out)) for word in WRITERS[name]]
    try:
        assert run_command(name, [str(weights), *words]) == 128 + number
    finally:
        signal.signal(number, before)
    said = capsys.readouterr().err
    assert said.endswith(f"convit-ssl {name}: stopped by {named(number)}{UNFINISHED}\n")
    assert "Traceback" not in said
    assert seen and not any(path.exists() for path in seen)
    assert [path for path in out.rglob("*") if path.is_file()] == []
