"""``convit-ssl export``: write a trunk for other libraries, each checked by that library."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import convit_ssl.adapters  # noqa: F401  lets timm be imported beside a CPU build of torch
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.options.values import Renamed
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.export.figures import figures_from_results, figures_from_run, of_these_weights
from convit_ssl.export.load import (
    activation,
    build,
    layer_norm_eps,
    set_activation,
    set_layer_norm_eps,
)
from convit_ssl.export.trunk import TARGETS, Written, export_trunk
from convit_ssl.models.fingerprint import weights_fingerprint
from convit_ssl.models.trunks import Network, OtherTrunk

SUMMARY = (
    "export weights to safetensors, timm, ONNX and other formats, and check that the outputs agree"
)
EXAMPLE = "convit-ssl export runs/demo --to timm safetensors onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add(
        "checkpoint",
        metavar="CKPT",
        help="checkpoint, run folder, or any file that `convit-ssl import` reads",
    )
    add("--to", nargs="+", action="extend", required=True, metavar="FORM", help=", ".join(TARGETS))
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder (default: export/ in the run folder, or NAME_export beside a file)",
    )
    add("--output", dest="out", type=Path, action=Renamed, new="--out", metavar="DIR")
    weights_options.add_arguments(
        parser,
        img_size="image size in pixels; position embeddings are resampled to it",
    )
    add("--no-classifier", action="store_true", help="drop the classifier: features only")
    add("--name", help="name of the files (default: variant and method)")
    add(
        "--license",
        default="unknown",
        help="licence of the weights, for the model card, such as apache-2.0 (default: unknown)",
    )
    add(
        "--results",
        nargs="+",
        default=[],
        metavar="JSON",
        help="result files with figures for the model card",
    )


@dataclasses.dataclass(frozen=True)
class Export:
    """What was written where, with which figures."""

    output: Path
    written: list[Written]
    figures: int
    left_out: list[str]


def read_model(args: argparse.Namespace) -> Network:
    """The network that CKPT names."""
    classes = 0 if args.no_classifier else None
    return weights_options.read_network(args, args.checkpoint, num_classes=classes)


def write(args: argparse.Namespace, model: Network) -> Export:
    """Write a network in the forms that the options ask for, and compare."""
    provenance = model.provenance
    output = args.out or _default_output(str(provenance["path"]))
    targets = [target for group in args.to for target in group.split(",") if target]
    found = [
        *figures_from_run(str(provenance["path"]), provenance),
        *figures_from_results(args.results),
    ]
    figures, left_out = of_these_weights(found, fingerprints(model))
    with progress_bar("export", "forms") as progress:
        written = export_trunk(
            model,
            targets,
            output,
            name=args.name or _default_name(model),
            license_name=args.license,
            figures=figures,
            progress=progress,
        )
    return Export(output, written, len(figures), list(left_out))


def run(args: argparse.Namespace) -> int:
    """Load, write, compare, print."""
    model = read_model(args)
    done = write(args, model)
    provenance = model.provenance
    written = done.written
    print(f"{provenance['weights']} weights of {provenance['path']}")
    print(f"written to {done.output}; largest difference in outputs on random images:")
    width = max(len(item.target) for item in written)
    for item in written:
        differences = ", ".join(map(str, item.differences)) or "values compared, equal"
        print(f"  {item.target:<{width}}  {differences}  ({', '.join(item.files)})")
        if item.note:
            print(f"  {'':<{width}}  {item.note}")
    figures = "1 figure" if done.figures == 1 else f"{done.figures} figures"
    print(f"  {'model card':<{width}}  README.md, {figures}")
    for text in done.left_out:
        print(f"  {'':<{width}}  left out: {text}")
    return 0


def fingerprints(model: Network) -> set[str]:
    """Of the weights, and of the same ones without their classifier: probes leave it aside."""
    own = {weights_fingerprint(model), str(vars(model)["provenance"]["fingerprint"])}
    if isinstance(model, OtherTrunk) or model.config.num_classes == 0:
        return own
    config = dataclasses.replace(model.config, num_classes=0)
    bare, _ = build(config, dict(model.state_dict()), "the model without its classifier")
    set_layer_norm_eps(bare, layer_norm_eps(model))
    set_activation(bare, activation(model))
    return own | {weights_fingerprint(bare)}


def _default_output(path: str) -> Path:
    file = Path(path)
    if file.parent.name == "checkpoints":  # runs/<name>/checkpoints/last.torch
        return file.parent.parent / "export"
    return file.parent / f"{file.stem}_export"


def _default_name(model: Network) -> str:
    provenance = model.provenance
    words = [(provenance["variant"] or "convit").replace(":", "_"), provenance["method"]]
    return "_".join(word for word in words if word)
