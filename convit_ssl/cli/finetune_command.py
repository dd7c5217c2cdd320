"""``convit-ssl finetune``: config=convit_finetune with its usual options as flags."""

from __future__ import annotations

import argparse
import time

from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.options.values import positive
from convit_ssl.cli.options.weights import WHICH

SUMMARY = "fine-tune a checkpoint on labelled images"
EXAMPLE = "convit-ssl finetune runs/demo --data digits --device cpu --epochs 20"
STARTED = time.time()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags for what is chosen most often; everything else as key=value."""
    add = parser.add_argument
    add(
        "checkpoint",
        metavar="CKPT",
        help="run folder or checkpoint: ours, the official ConViT's or timm's",
    )
    add(
        "--data",
        default="folder",
        help="a built-in data set, imagenet, or folder, list, table or shards for your own "
        "(default: folder)",
    )
    add("--data-dir", help=division_options.DATA_DIR)
    add("--subset", help="labelled images to use, such as fraction=0.1,seed=0 or per_class=10")
    add(
        "--low-shot",
        type=float,
        metavar="PERCENT",
        help="use the settings for few labels, on this percentage of each class (such as 1 or 10) "
        "unless --subset is given",
    )
    add("--weights", default="teacher", metavar="WHICH", help=WHICH)
    add(
        "--epochs",
        type=positive,
        help="epochs (default: 100 as published, or chosen from the number of images)",
    )
    add(
        "--img-size",
        type=positive,
        help="image size in pixels; position embeddings are resampled to it",
    )
    add(
        "--freeze-epochs",
        type=float,
        default=0.0,
        help="epochs at the start in which only the classifier learns",
    )
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train")
    add("--name", help="name of the run folder under runs/")
    add("--seed", type=int, default=0, help="seed of the run")
    division_options.add_arguments(parser)
    weights_options.add_settings(parser, "--weights-img-size")
    add("overrides", nargs="*", metavar="key=value", help="any other option of the experiment")


def run(args: argparse.Namespace) -> int:
    """Compose the experiment's command line and run it."""
    from convit_ssl.engines.launch.command import run_experiment

    subset = args.subset
    if subset is None and args.low_shot is not None:
        subset = f"fraction={args.low_shot / 100:g},seed={args.seed}"
    given = {
        "data_dir": args.data_dir,
        "data.subset": subset and f"'{subset}'",
        "optim.epochs": args.epochs,
        "crops.global_size": args.img_size,
        "run.name": args.name,
    }
    arguments = [
        "config=convit_finetune" if args.low_shot is None else "config=convit_low_shot",
        f"data={args.data}",
        "run=gpu8" if args.device == "cuda" else "run=cpu",
        f"run.device={args.device}",
        f"weights={args.checkpoint}",
        f"weights_from={args.weights}",
        f"method.freeze_trunk_epochs={args.freeze_epochs}",
        f"seed={args.seed}",
        *(f"{key}={value}" for key, value in given.items() if value is not None),
        *division_options.overrides(args),
        *weights_options.overrides(args),
        *args.overrides,
    ]
    return run_experiment(arguments, STARTED)
