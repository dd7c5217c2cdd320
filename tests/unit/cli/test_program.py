"""The list of commands, and an example of each that can be run."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import convit_ssl.cli
from convit_ssl import __version__
from convit_ssl.cli import demo_command, program
from convit_ssl.cli.main import COMMANDS, _run_and_flush, build_parser, main, run_command
from convit_ssl.errors import UserError


def test_every_command_has_a_module_and_every_module_a_command() -> None:
    (folder,) = convit_ssl.cli.__path__
    found = {path.name.removesuffix("_command.py") for path in Path(folder).glob("*_command.py")}
    assert found == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_gives_an_example_that_the_command_itself_accepts(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(name, ["--help"])
    assert stopped.value.code == 0
    command = importlib.import_module(f"convit_ssl.cli.{name}_command")
    printed = " ".join(capsys.readouterr().out.split())
    assert " ".join(f"example: {command.EXAMPLE}".split()) in printed
    words = shlex.split(command.EXAMPLE.splitlines()[0], comments=True)
    assert words[:2] == ["convit-ssl", name]
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.add_arguments(parser)
    parser.parse_args(words[2:])


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for kind in action.choices.values():
                yield from _parsers(kind)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_says_what_it_is(name: str) -> None:
    command = importlib.import_module(f"convit_ssl.cli.{name}_command")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    bare = [
        action.dest
        for each in _parsers(parser)
        for action in each._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert bare == []


def test_usage_does_not_repeat_many_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    assert capsys.readouterr().out.startswith(
        "usage: convit-ssl study KIND --data DATA [options]\n"
    )
    with pytest.raises(SystemExit):
        main(["export", "runs/x", "--nonsense"])
    usage = "usage: convit-ssl export CKPT --to FORM [FORM ...] [options]\n"
    assert capsys.readouterr().err.startswith(usage)


def test_top_level_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = build_parser().format_help()
    for name, summary in COMMANDS.items():
        assert name in text and summary in text
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["help"])
    assert stopped.value.code == 0
    assert "commands:" in capsys.readouterr().out


def test_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["trian"])
    assert stopped.value.code == 2
    assert "trian" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`convit-ssl audit ... | head` ends without a traceback."""
    code = """
import sys
import time
from collections.abc import Iterator, Sequence
import convit_ssl.cli.doctor_command as command
from convit_ssl.cli.main import main
command.run = lambda args: [sys.stdin.readline(), print("x" * 100_000)] and 0
sys.exit(main(["doctor"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdout.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(120) == 141


@pytest.mark.parametrize(
    "words",
    [
        "knn pixels --data digits --temperature 0",
        "knn pixels --data digits -k 0",
        "knn pixels --data digits --batch-size 0",
        "knn pixels --data digits --workers -1",
        "knn pixels --data digits --device cuda:99",
        "knn pixels --data digits --device foo",
        "linear pixels --data digits --hold-out 1.5",
        "linear pixels --data digits --epochs -5",
        "attention i.png --checkpoint w --dpi 0",
        "study ablation --data digits --jobs 0",
    ],
)
def test_values_that_cannot_be_meant_are_refused(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *arguments = words.split()
    with pytest.raises(SystemExit) as stopped:
        run_command(name, arguments)
    assert stopped.value.code == 2
    assert arguments[-2] in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--confusion", "--cache"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run_command("knn", ["nothing", option, str(tmp_path / "file" / "x")]) == 2
    assert f"{tmp_path / 'file'} is a file, not a folder" in capsys.readouterr().err


def test_a_place_that_fails_later_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "names.txt"
    words = ["--data", "digits", "--per-class", "1", "--out", str(listed / "")]
    listed.mkdir()
    assert run_command("subset", words) == 2
    assert "Traceback" not in capsys.readouterr().err


def stopped(*_: object) -> int:
    raise KeyboardInterrupt


def test_ctrl_c_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("convit_ssl.cli.audit_command.run", stopped)
    assert run_command("audit", ["x.torch"]) == 130
    assert capsys.readouterr().err == "convit-ssl audit: stopped by Ctrl-C\n"
    with pytest.raises(KeyboardInterrupt):
        run_command("audit", ["x.torch", "--debug"])


def test_ctrl_c_while_a_command_is_imported_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a library turns the interrupt into an error of its own."""

    def as_a_library_does(name: str) -> object:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("a library's own words") from None
        raise AssertionError("no signal came")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("convit_ssl.cli.main.importlib.import_module", as_a_library_does)
    assert run_command("knn", ["x.torch"]) == 130
    assert capsys.readouterr().err == "convit-ssl knn: stopped by Ctrl-C\n"
    assert signal.getsignal(signal.SIGINT) == before


def test_the_script_gives_no_traceback_before_the_command_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []
    monkeypatch.setattr(
        "convit_ssl.cli.main.main", lambda: seen.append(signal.getsignal(signal.SIGINT)) or 0
    )
    try:
        assert program.main() == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIG_DFL]


@pytest.mark.parametrize(("code", "raised"), [(130, SystemExit), (2, UserError)])
def test_the_demo_ends_as_the_command_that_it_calls(
    code: int, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convit_ssl.cli.main.run_command", lambda name, arguments: code)
    with pytest.raises(raised):
        demo_command._call("train")


@pytest.mark.parametrize(
    ("seconds", "spent", "epochs"),
    [(3.0, 10.0, 56), (0.0, 5.0, 56), (6.0, 20.0, 24), (9.0, 30.0, 11), (100.0, 200.0, 6)],
)
def test_the_demo_is_as_long_as_the_machine_allows(
    seconds: float, spent: float, epochs: int
) -> None:
    assert demo_command.fitting_epochs(seconds, spent) == epochs


def test_the_demo_times_an_epoch_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def train(name: str, arguments: Sequence[str]) -> int:
        calls.append((name, *arguments))
        print("the screen of a run")
        (folder,) = (word.partition("=")[2] for word in arguments if word.startswith("run.dir="))
        Path(folder).mkdir()
        Path(folder, "result.json").write_text('{"figures": {"seconds": 6.0}}')
        return 0

    monkeypatch.setattr("convit_ssl.cli.main.run_command", train)
    assert demo_command._epochs_that_fit(["seed=3"], time.monotonic()) == 27
    ((name, *arguments),) = calls
    assert name == "train" and {"seed=3", "optim.epochs=2"} <= set(arguments)
    said = capsys.readouterr().out
    assert "an epoch takes 6.0 s" in said and "27 epochs instead of 56" in said
    assert "the screen" not in said


def test_data_sets_are_all_named(capsys: pytest.CaptureFixture[str]) -> None:
    known = {path.stem for path in Path("configs/data").glob("*.yaml")}
    assert known
    with pytest.raises(SystemExit):
        run_command("knn", ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert [name for name in sorted(known) if name not in text] == []


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("export nothing.pth --to timm --output x", "--output has been renamed to --out"),
        ("import nothing.pth --output x.pth", "--output has been renamed to --out"),
        (
            "attention i.png --weights nothing.pth",
            "--weights CKPT has been renamed to --checkpoint",
        ),
        (
            "attention i.png --checkpoint nothing.pth --which ema",
            "--which has been renamed to --weights",
        ),
        (
            "study sample-efficiency --data digits --weights a",
            "--weights has been renamed to --checkpoints",
        ),
    ],
)
def test_old_names_of_options_work_and_say_the_new_one(
    words: str, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    name, *arguments = words.split()
    assert run_command(name, arguments) == 2  # for the files that are not there
    said = capsys.readouterr().err
    assert note in said and said.count(f"convit-ssl {name}: ") == 1


def test_out_is_where_every_command_writes() -> None:
    """Apart from the old name, which --help does not show."""
    for name in COMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"convit_ssl.cli.{name}_command").add_arguments(parser)
        for action in parser._actions:
            if "--output" in action.option_strings:
                assert action.help == argparse.SUPPRESS and action.dest == "out"
            if "--weights" in action.option_strings and action.help != argparse.SUPPRESS:
                assert action.metavar == "WHICH", name


def test_windows_is_told_at_once_what_to_do() -> None:
    code = "import sys, pathlib, os; sys.platform = 'win32'; import convit_ssl.cli.main"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1 and "on Windows, install it in WSL 2" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_command_without_standard_output_ends_as_it_should(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under ``>&-``: Python has no standard output then."""
    monkeypatch.setattr("convit_ssl.cli.main.run_command", lambda name, arguments: 7)
    monkeypatch.setattr(sys, "stdout", None)
    assert _run_and_flush("train", []) == 7


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_lead_nowhere(closed: str, tmp_path: Path) -> None:
    """With standard error closed, errors went to standard output, and `knn` ended with 1."""
    program = (
        "import os, sys; from convit_ssl.starting import open_closed_streams as o; o(); "
        "print('x', file=sys.stderr); sys.stdout.flush(); assert os.open('/', 0) > 2"
    )
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == 0 and done.stdout == b""
