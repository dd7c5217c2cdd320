"""``convit-ssl import``: read a foreign ConViT checkpoint into ours, and prove it is the same."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import convit_ssl.adapters  # noqa: F401  lets timm and VISSL be imported
from convit_ssl.cli.vissl_trunk import vissl_difference
from convit_ssl.errors import UserError
from convit_ssl.export import load_trunk
from convit_ssl.export.audit import audit_trunk
from convit_ssl.export.check import Difference, compare, own_size
from convit_ssl.export.load import describe, layer_norm_eps
from convit_ssl.export.save import FORMATS, save_trunk
from convit_ssl.export.timm_target import load_into_timm
from convit_ssl.models import ConViT

SUMMARY = "read an official, timm, DINO or VISSL checkpoint of a ConViT into ours"
EXAMPLE = "convit-ssl import convit_small.pth --output convit_small.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add(
        "source",
        metavar="FILE",
        help="a file or folder of weights, a VISSL run, or a hub name such as timm:convit_small",
    )
    add("--output", type=Path, help=f"file to write ({', '.join(FORMATS)}); only look by default")
    add("--weights", default="teacher", choices=("teacher", "student", "ema"))
    add("--img-size", type=int, metavar="PX", help="resample position embeddings to this size")
    add("--variant", help="refuse anything but this variant")
    add("--num-heads", type=int, help="of a plain ViT, whose weights do not tell")
    add("--no-classifier", action="store_true", help="leave a classifier out")
    add("--all", action="store_true", help="list every tensor that was not loaded")


def run(args: argparse.Namespace) -> int:
    """Load, compare with the source's own class, write, print."""
    model = load_trunk(
        args.source,
        weights=args.weights,
        img_size=args.img_size,
        num_classes=0 if args.no_classifier else None,
        variant=args.variant,
        num_heads=args.num_heads,
    )
    provenance: dict[str, Any] = model.provenance  # type: ignore[assignment]
    print(describe(model.config))
    print(f"  from {provenance['path']}, {provenance['weights']} weights")
    others = [role for role in provenance["available"] if role != provenance["weights"]]
    if others:
        print(f"  the file also holds: {', '.join(others)} (--weights)")
    for note in provenance["notes"]:
        print(f"  {note}")
    print(f"  loaded: all {len(model.state_dict())} tensors of the trunk")
    _print_left_out(provenance["not_loaded"], args.all)
    for problem in audit_trunk(model).problems:
        print(f"  PROBLEM: {problem}")
    name, difference = _difference(model, provenance["layout"])
    print(f"  largest difference to {name}: {difference}")
    if args.output:
        save_trunk(model, args.output)
        print(f"  written: {args.output}")
    return 0


def _print_left_out(names: list[str], everything: bool) -> None:
    shown = names if everything else names[:5]
    print(f"  not loaded: {', '.join(shown) or 'nothing'}", end="")
    print(f", and {len(names) - len(shown)} more (--all)" if len(names) > len(shown) else "")


def _difference(model: ConViT, layout: str) -> tuple[str, Difference | str]:
    """Against the class that the weights were made for."""
    try:
        if layout == "vissl":
            return "VISSL's own ConViT", vissl_difference(model)
        if layer_norm_eps(model) != 1e-6:
            return "timm's ConViT", "not comparable, its LayerNorm eps is 1e-06"
        size = own_size(model)
        theirs = load_into_timm(model.config, dict(model.state_dict()), size)
        return "timm's ConViT", compare(model, theirs, size)
    except UserError as error:
        return "its source", f"not measured ({error})"
