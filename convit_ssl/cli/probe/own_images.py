"""The images that a run was trained on, for a command that names none."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from convit_ssl.analysis.sampling import recorded_data
from convit_ssl.engines.checkpoints.files import CHECKPOINTS
from convit_ssl.engines.options.first_start import read_options


def take_images_of_run(args: argparse.Namespace) -> None:
    """Set ``--data`` and ``--data-dir`` from the run of CKPT, and say so; else change nothing.

    The split that a run was trained with is found by `division.prepare`.

    Args:
        args: of a command with the options of `sources`; CKPT may be a run folder or one of its
            checkpoints.
    """
    if args.data or args.data_dir:
        return
    path = Path(args.checkpoint)
    folder = path.parent.parent if path.parent.name == CHECKPOINTS else path
    if not (folder / CHECKPOINTS).is_dir():
        return
    name, data_dir = recorded_data(read_options(folder))
    if name is None:
        return
    args.data, args.data_dir = name, data_dir
    where = f" --data-dir {shlex.quote(data_dir)}" if data_dir else ""
    print(f"images of the run: --data {name}{where}", file=sys.stderr)
