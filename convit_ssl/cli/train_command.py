"""``convit-ssl train``: the same as tools/run_distributed_engines.py."""

from __future__ import annotations

import argparse

SUMMARY = "Run an experiment: pretrain, fine-tune or probe."
EXAMPLE = "convit-ssl train config=convit_dino data=digits run=cpu trunk=convit_nano"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Overrides, as Hydra writes them."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="config=NAME or config=./mine.yaml, followed by the options to change, such as "
        "data=digits or optim.epochs=20 (`convit-ssl options` lists all)",
    )
    parser.add_argument(
        "--config-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="folder of your own experiments and groups, such as data/ and trunk/",
    )


def run(args: argparse.Namespace) -> int:
    """Compose, check and run."""
    from convit_ssl.engines.launch.command import process_started, run_experiment

    folders = [f"--config-dir={folder}" for folder in args.config_dir]
    return run_experiment([*folders, *args.overrides], process_started())
