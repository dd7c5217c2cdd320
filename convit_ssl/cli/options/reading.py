"""Options that several commands on features share, each written once."""

from __future__ import annotations

import argparse

from convit_ssl.errors import UserError


def add_token(parser: argparse.ArgumentParser, use: str) -> None:
    """``--token``: which of a network's features is used.

    Args:
        parser: of the command.
        use: what for, as a verb.
    """
    parser.add_argument(
        "--token",
        help=f"feature to {use}, such as patch_mean_last1 (default: the last class token)",
    )


def add_split(
    parser: argparse.ArgumentParser, default: str | None = None, when: str | None = None
) -> None:
    """``--split``: the images of which part.

    Args:
        parser: of the command.
        default: train, val or test; None where the command chooses.
        when: what it chooses then.
    """
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default=default,
        help=f"split to use (default: {when or default})",
    )  # fmt: skip


def add_labels(parser: argparse.ArgumentParser, unlabelled: str = "", groups: str = "") -> None:
    """``--labels`` and ``--group-by`` of commands that read a table and divide nothing.

    Args:
        parser: of the command.
        unlabelled: what becomes of images without a row.
        groups: what groups are for.
    """
    parser.add_argument(
        "--labels", metavar="TABLE:COLUMNS",
        help="labels (and groups) from a CSV or Parquet table, such as "
        f"table.csv:file,label,patient; or folder:2, name:REGEX{unlabelled}",
    )  # fmt: skip
    parser.add_argument(
        "--group-by", metavar="WHAT",
        help=f"folder:1, column:patient (of --labels), name:REGEX{groups}",
    )  # fmt: skip


def add_json(parser: argparse.ArgumentParser, what: str = "results and all settings") -> None:
    """``--json``: a file for programs."""
    parser.add_argument("--json", metavar="FILE", help=f"write {what} to this file")


def refuse_processes(args: argparse.Namespace, command: str) -> None:
    """Say that a command runs in one process.

    Raises:
        UserError: several were asked for.
    """
    if args.processes > 1:
        raise UserError(f"{command} runs in one process; leave --processes out")
