"""``convit-ssl options``: every option of an experiment, and what it may be."""

from __future__ import annotations

import argparse
import shutil

SUMMARY = "list the options of an experiment with default, range, unit and meaning"
EXAMPLE = "convit-ssl options optim"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add(
        "prefix",
        nargs="?",
        help="list only these options: a section, the start of a key, or the name of a method",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print as JSON")
    form.add_argument("--markdown", action="store_true", help="print as the page docs/OPTIONS.md")


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    from convit_ssl.engines.options import describe

    found = describe.matching(args.prefix)
    if args.json:
        print(describe.as_json(found))
    elif args.markdown:
        print(describe.as_markdown(found), end="")
    else:
        print(describe.as_text(found, min(shutil.get_terminal_size().columns, 100)))
    return 0
