"""The images that a run was trained on, for a command that names none."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from convit_ssl.analysis.sampling import recorded_annotations, recorded_data
from convit_ssl.data.listing.annotations import Table, labelled
from convit_ssl.data.listing.folders import Listing
from convit_ssl.engines.checkpoints.files import CHECKPOINTS
from convit_ssl.engines.options.first_start import read_options


def take_images_of_run(args: argparse.Namespace) -> None:
    """Set ``--data`` and ``--data-dir`` from the run of CKPT, and say so, if neither is given.

    The split that a run was trained with is found by `division.prepare`. Where these are the run's
    images, the labels and groups that it was given for them become ``args.run_labels`` and
    ``args.run_groups``.

    Args:
        args: of a command with the options of `sources`; CKPT may be a run folder or one of its
            checkpoints.
    """
    args.run_labels = args.run_groups = None
    path = Path(args.checkpoint)
    folder = path.parent.parent if path.parent.name == CHECKPOINTS else path
    if not (folder / CHECKPOINTS).is_dir():
        return
    options = read_options(folder)
    name, data_dir = recorded_data(options)
    if name is None:
        return
    if not (args.data or args.data_dir):
        args.data, args.data_dir = name, data_dir
        where = f" --data-dir {shlex.quote(data_dir)}" if data_dir else ""
        print(f"images of the run: --data {name}{where}", file=sys.stderr)
    elif not _same(args, name, data_dir):
        return
    args.run_labels, args.run_groups = recorded_annotations(folder, options)


def _same(args: argparse.Namespace, name: str, data_dir: str | None) -> bool:
    given = args.data or "folder"
    paths = [os.path.realpath(path) if path else None for path in (args.data_dir, data_dir)]
    return given == name and paths[0] == paths[1]


def with_run_labels(listing: Listing, args: argparse.Namespace) -> tuple[Listing, Table | None]:
    """A listing of the run's images with the labels it was trained with, and their table.

    Raises:
        UserError: labels that cannot be read.
    """
    text = getattr(args, "run_labels", None)
    return labelled(listing, text) if text else (listing, None)
