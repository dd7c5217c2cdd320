"""``convit-ssl audit``: what a checkpoint is, and whether its convolutional init is there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import convit_ssl.adapters  # noqa: F401  lets timm and VISSL be imported
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.vissl_trunk import vissl_trunk_by_name
from convit_ssl.errors import UserError
from convit_ssl.export.audit import audit_trunk, repair_trunk
from convit_ssl.export.audit_text import audit_text
from convit_ssl.export.build import trunk_by_name
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT

SUMMARY = "describe a checkpoint and check whether its convolutional init is really there"
EXAMPLE = "convit-ssl audit --trunk vissl:convit --repair sound.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", nargs="?", help="checkpoint, run folder, or any weights")
    add(
        "--trunk",
        metavar="NAME",
        help="audit a newly built network instead: convit_small, timm:convit_small, vissl:convit",
    )
    weights_options.add_arguments(parser, img_size="image size the weights were trained at")
    add("--heads", action="store_true", help="print one line per head")
    add("--json", action="store_true", help="print JSON")
    add(
        "--repair",
        type=Path,
        metavar="OUT",
        help="write a copy with the convolutional init restored (untrained weights only)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the audit; 0 when sound or repaired, 1 when there is a problem."""
    model = _model(args)
    report = audit_trunk(model)
    repaired: list[int] = []
    if args.repair:
        repaired = _repair(model, args.repair, report.repairable)
    if args.json:
        print(json.dumps({**report.as_dict(), "repaired": repaired}, indent=2))
    else:
        print(audit_text(report, args.heads))
        if repaired:
            print(f"  repaired: {len(repaired)} GPSA blocks re-localised, written to {args.repair}")
    left = audit_trunk(model).problems if repaired else report.problems
    return 1 if left else 0


def _model(args: argparse.Namespace) -> ConViT:
    if (args.checkpoint is None) == (args.trunk is None):
        raise UserError("give a checkpoint or --trunk NAME")
    if args.trunk is not None:
        weights_options.refuse(args, "a checkpoint", but=("img_size",))
    if args.trunk is None:
        return weights_options.read_trunk(args, args.checkpoint)
    if args.trunk.startswith("vissl:"):
        return vissl_trunk_by_name(args.trunk.removeprefix("vissl:"))
    return trunk_by_name(args.trunk)


def _repair(model: ConViT, path: Path, repairable: list[int]) -> list[int]:
    if not repairable:
        raise UserError("nothing to repair: every untrained GPSA block has its convolutional init")
    try:
        repaired = repair_trunk(model)
    except ValueError as error:
        raise UserError(str(error)) from error
    save_trunk(model, path)
    return repaired
