"""``convit-ssl import``: convert a checkpoint of another project, and prove that it is the same."""

from __future__ import annotations

import argparse
from pathlib import Path

import convit_ssl.adapters  # noqa: F401  lets timm and VISSL be imported
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.options.values import Renamed
from convit_ssl.cli.vissl_trunk import vissl_difference
from convit_ssl.errors import UserError
from convit_ssl.export.architectures import timm_facts
from convit_ssl.export.audit import audit_trunk
from convit_ssl.export.check import Difference
from convit_ssl.export.load import describe
from convit_ssl.export.proof import by_reference, by_timm_convit, by_timm_vit
from convit_ssl.export.save import FORMATS, save_trunk
from convit_ssl.models import ConViT

SUMMARY = (
    "convert a checkpoint of the official ConViT, timm, DINO, VISSL or another project, and check "
    "that the outputs agree"
)
EXAMPLE = "convit-ssl import convit_small.pth --out convit_small.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add(
        "source",
        metavar="FILE",
        help="a file or folder of weights, a VISSL run, or a hub name such as timm:convit_small",
    )
    add(
        "--out",
        type=Path,
        help=f"file to write ({', '.join(FORMATS)}); by default nothing is written",
    )
    add("--output", dest="out", type=Path, action=Renamed, new="--out")
    weights_options.add_arguments(
        parser,
        img_size="image size it was trained at, if the file does not say, or size to resample to",
    )
    add("--variant", help="fail unless it is this variant")
    add("--no-classifier", action="store_true", help="drop the classifier")
    add("--against", metavar="NAME", help="timm model to compare a plain ViT with")
    add(
        "--reference",
        type=Path,
        metavar="NPZ",
        help="file with images and expected features to compare with",
    )
    add("--all", action="store_true", help="list every tensor that was not loaded")


def run(args: argparse.Namespace) -> int:
    """Load, compare with something that guesses nothing, print, write; 1 where they differ."""
    model = weights_options.read_trunk(
        args,
        args.source,
        num_classes=0 if args.no_classifier else None,
        variant=args.variant,
    )
    provenance = model.provenance
    print(describe(model.config))
    print(f"  from {provenance['path']}, {provenance['weights']} weights")
    others = [role for role in provenance["available"] if role != provenance["weights"]]
    if others:
        print(f"  the file also holds: {', '.join(others)} (--weights)")
    for note in provenance["notes"]:
        print(f"  {note}")
    for guess in provenance["guesses"]:
        print(f"  ASSUMED: {guess}")
    print(f"  loaded: all {len(model.state_dict())} tensors of the trunk")
    _print_left_out(provenance["not_loaded"], args.all)
    for problem in audit_trunk(model).problems:
        print(f"  PROBLEM: {problem}")
    name, difference = _difference(model, args)
    print(f"  largest difference from {name}: {difference}")
    if isinstance(difference, Difference) and not difference.within_tolerance:
        print(
            "  PROBLEM: this is more than rounding error, so one of the assumptions above is "
            "wrong. Nothing was written"
        )
        return 1
    if args.out:
        save_trunk(model, args.out)
        print(f"  written: {args.out}")
    return 0


def _print_left_out(names: list[str], everything: bool) -> None:
    shown = names if everything else names[:5]
    print(f"  not loaded: {', '.join(shown) or 'nothing'}", end="")
    print(f", and {len(names) - len(shown)} more (--all)" if len(names) > len(shown) else "")


def _difference(model: ConViT, args: argparse.Namespace) -> tuple[str, Difference | str]:
    """Compare with an independent implementation or stored features, or say that there are none."""
    provenance = model.provenance
    if args.reference:
        return by_reference(model, args.reference)
    if args.against:
        return by_timm_vit(model, args.source, args.weights, args.against)
    try:
        if provenance["layout"] == "vissl":
            return "VISSL's own ConViT", vissl_difference(model)
        if model.config.num_gpsa_layers:
            return by_timm_convit(model)
        for name in provenance["names"]:
            if timm_facts(name) is not None:
                return by_timm_vit(model, args.source, args.weights, name)
    except UserError as error:
        return "its source", f"not measured ({error})"
    return "its source", (
        "not checked against an independent implementation. Compare it with --against NAME (a "
        "timm model) or --reference NPZ (stored images and features)"
    )
