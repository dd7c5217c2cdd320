"""Names are printed as they are: no markup, no escape sequences, on any way to the terminal."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from convit_ssl.cli.main import run_command
from convit_ssl.engines.callbacks.console import Screen
from convit_ssl.engines.callbacks.output import lasting_output, printable_output
from convit_ssl.evaluation import progress
from convit_ssl.printable import PrintableFormatter, printable
from convit_ssl.terminal import Terminal

NAME = "runs/[red]a[/red] [/b] [link=x]c :smile: \x1b[31mend\x9b2J\x07\u202e"
SHOWN = "runs/[red]a[/red] [/b] [link=x]c :smile: \\x1b[31mend\\x9b2J\\x07\\u202e"


def table() -> Table:
    found = Table(title=NAME, box=None)
    found.add_column(NAME, no_wrap=True)
    found.add_row(NAME)
    return found


@pytest.mark.parametrize("thing", [NAME, Text(printable(NAME), style="bold"), table()])
@pytest.mark.parametrize("colours", [False, True])
def test_what_rich_prints(thing: object, colours: bool) -> None:
    file = io.StringIO()
    Terminal(file=file, width=120, force_terminal=colours).print(thing)
    text = file.getvalue()
    assert SHOWN in text
    assert "\x9b" not in text and "\x07" not in text and "\x1b[31m" not in text


def test_a_bar() -> None:
    file = io.StringIO()
    columns = TextColumn("{task.description}", markup=False)
    with Progress(columns, console=Terminal(file=file, width=120, force_terminal=True)) as bar:
        bar.add_task(printable(NAME))
    assert SHOWN in file.getvalue() and "\x1b[31m" not in file.getvalue()


def test_plain_text_and_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with printable_output():
        print(NAME)
        print(NAME, file=sys.stderr)
        Screen().line(NAME)
        Screen().facts({"output": NAME}, NAME)
        with lasting_output():
            print(NAME)
            Screen().line(NAME)
    with lasting_output():
        print(NAME)
        Screen().line(NAME)
    found = capsys.readouterr()
    assert found.out.count(SHOWN) == 8 and found.err.count(SHOWN) == 1
    assert "\x1b" not in found.out + found.err


def test_colours_of_ones_own_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    with printable_output(), lasting_output():
        Terminal(force_terminal=True, color_system="standard").print(Text("a", style="red"))
    assert file.getvalue() == "\x1b[31ma\x1b[0m\n"


def test_a_reader_that_is_gone() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Terminal(file=Gone()).print("text")


def test_messages_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("audit", [NAME]) == 2
    assert f"no such checkpoint: {SHOWN}" in capsys.readouterr().err


def test_the_log() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (NAME,), None)
    assert PrintableFormatter("%(message)s").format(record) == SHOWN
    assert printable("two\nlines\tand é日") == "two\nlines\tand é日"


def test_a_long_epoch_gets_lines_where_there_is_no_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from convit_ssl.engines.callbacks import console

    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    screen = Screen()
    screen.start(400, 0)
    for second in range(0, 100, 1):
        clock[0] = float(second)
        screen.update(4 * second, "epoch 1/2", "loss 5.000")
        if second == 50:
            screen.line("epoch 1/2 is over")
    lines = capsys.readouterr().out.splitlines()
    seconds = [2, 4, 6, 8, *range(13, 49, 5), 50, 55, 60, 66, 72, 79, 87, 95]
    steps = ["1/2" if second == 50 else str(4 * second) for second in seconds]
    assert [line.split()[1] for line in lines] == steps
    assert lines[0] == "  step 8 of 400 (epoch 1/2)  loss 5.000"


def test_work_between_steps_is_named_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.02)
    monkeypatch.setattr(progress, "SOONEST", 0.02)
    for quiet in (False, True):
        screen = Screen(quiet)
        screen.start(total=10, done=0)
        with screen.working("testing on val"):
            time.sleep(0.1)
        lines = capsys.readouterr().err.splitlines()
        assert bool(lines) is not quiet
        assert all(line.startswith("testing on val: working, ") for line in lines)
