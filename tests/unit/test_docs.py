"""Every command in the documentation is accepted by the program, and every link has a target."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from convit_ssl.cli.main import COMMANDS
from convit_ssl.engines.options.compose import compose_experiment

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^ *```[a-z]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(convit-ssl (?![^`]*config=mine)[^`]*(?: --|config=convit_)[^`]*)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)")
COMMAND = re.compile(r"convit-ssl [a-z]+( |$)")
LAUNCHER = "python tools/run_distributed_engines.py"
# Words that stand for something the reader puts in.
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b|\.\.\.|<")


def commands(path: Path) -> list[str]:
    """What calls us in code blocks and in the text, with continued lines joined."""
    found = []
    text = path.read_text(encoding="utf-8")
    inline = [] if path.name == "CHANGELOG.md" else INLINE.findall(BLOCK.sub("", text))
    for block in [*BLOCK.findall(text), *inline]:
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ").replace(LAUNCHER, "convit-ssl train")
            if COMMAND.match(line) and not PLACEHOLDER.search(line):
                found.append(" ".join(line.split()))
    return found


ALL = sorted({line for page in PAGES for line in commands(page)})


def test_there_are_commands_to_check() -> None:
    assert len(ALL) > 20


@pytest.mark.parametrize("line", ALL)
def test_the_command_is_accepted(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    words = words[: next((i for i, word in enumerate(words) if word in ("|", ">", "&&")), None)]
    name, arguments = words[0], words[1:]
    assert name in COMMANDS
    if name == "train":
        compose_experiment(arguments)
        return
    command = importlib.import_module(f"convit_ssl.cli.{name}_command")
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.add_arguments(parser)
    parser.parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    generated = {"results.md"}  # by `make docs`
    dead = [
        link
        for link in LINK.findall(text)
        if "://" not in link
        and not link.startswith("mailto:")
        and link not in generated
        and not (page.parent / link).exists()
    ]
    assert not dead
