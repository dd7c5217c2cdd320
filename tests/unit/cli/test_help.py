"""How the options of a command are printed."""

from __future__ import annotations

import argparse

import pytest

from convit_ssl.cli.help import HelpFormatter


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"default": 0.07, "help": "temperature"}, "temperature (default: 0.07)"),
        ({"default": [8, 64], "nargs": "+", "help": "GPUs"}, "GPUs (default: 8 64)"),
        ({"default": "nano", "help": "size (ablation)"}, "size (ablation; default: nano)"),
        ({"default": 100, "help": "epochs (default: as published)"}, "(default: as published)"),
        ({"default": None, "help": "a folder"}, "a folder"),
        ({"action": "store_true", "help": "a switch"}, "a switch"),
        ({"default": "50%", "help": "a fraction"}, "a fraction (default: 50%)"),
    ],
)
def test_help_ends_with_the_default(option: dict[str, object], says: str) -> None:
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter)
    parser.add_argument("--x", **option)  # type: ignore[arg-type]
    assert parser.format_help().splitlines()[-1].endswith(says)


def test_names_with_hyphens_stay_whole() -> None:
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter)
    parser.add_argument("--reference", help="one of " + "hf-hub:NAME " * 40)
    assert "hf-\n" not in parser.format_help()
