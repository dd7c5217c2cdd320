"""What a trunk has to beat: pixels, the network untrained, frozen networks of others."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from convit_ssl.cli.probe_sources import Source, open_source, untrained_like
from convit_ssl.errors import UserError
from convit_ssl.evaluation.frozen import (
    SUGGESTED,
    FrozenFeatures,
    how_to_get,
    is_hub_name,
    open_frozen,
)
from convit_ssl.evaluation.tokens import TokenFeatures


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
        help="also compare with this frozen network: timm:NAME, timm:NAME=FILE, hf-hub:NAME, or a "
        "checkpoint. Can be repeated",
    )


def asked(args: argparse.Namespace) -> bool:
    """Whether anything is to be compared with."""
    return bool(args.references or args.reference)


def references(args: argparse.Namespace, own: Source) -> Iterator[Source | Missing]:
    """The references, each opened when it is needed.

    Raises:
        UserError: references of something that is no trunk.
    """
    yield from plain_references(args, own)
    for name in args.reference:
        yield frozen_source(name, args)
    if not args.reference:
        yield not_asked()


def plain_references(args: argparse.Namespace, own: Source) -> Iterator[Source]:
    """Raw pixels, and the network untrained if it is not so itself.

    Raises:
        UserError: references of something that is not a trunk.
    """
    extractor: Any = own.extractor
    if not isinstance(extractor, (TokenFeatures, FrozenFeatures)):
        raise UserError("--references compares a trunk with pixels; CKPT is 'pixels' itself")
    yield open_source(args, "pixels", own.reading)
    if isinstance(extractor, TokenFeatures) and not args.checkpoint.startswith("random:"):
        model: Any = extractor.model
        yield untrained_like(model, args)


def not_asked() -> Missing:
    """The row of a frozen network where none is named: it says how to get one."""
    return Missing("frozen network", how_to_get(SUGGESTED))


def frozen_source(name: str, args: argparse.Namespace) -> Source | Missing:
    """A network of others, or why it is not here.

    Raises:
        UserError: a file that is not there.
    """
    if not is_hub_name(name):
        size = getattr(args, "reference_size", None)
        plain = argparse.Namespace(**{**vars(args), "img_size": size, "mask": None, "token": None})
        source = open_source(plain, name)
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
