"""``convit-ssl study``: sample-efficiency, ablation and pretraining studies."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.options.division import DATA_DIR
from convit_ssl.cli.options.values import Renamed, above_zero, positive
from convit_ssl.cli.study.baselines import run as run_baselines
from convit_ssl.cli.study.kinds import BASELINES, KINDS, SCORES, refuse_others
from convit_ssl.cli.study.plan import plan
from convit_ssl.cli.study.probes import probe_runs
from convit_ssl.cli.study.scores import run as run_scores
from convit_ssl.evaluation.features.frozen import is_hub_name
from convit_ssl.evaluation.results import record_folder
from convit_ssl.evaluation.studies import design as study
from convit_ssl.evaluation.studies.pretraining import write_pretraining
from convit_ssl.evaluation.studies.report import progress_table, write_study
from convit_ssl.evaluation.studies.runner import State, run_study
from convit_ssl.evaluation.studies.screen import watching
from convit_ssl.terminal import Terminal

SUMMARY = "run a study: several networks, fractions of the labels and seeds. Resumable"
EXAMPLE = (
    "convit-ssl study sample-efficiency --data digits --fractions 0.3 1 --seeds 1 --epochs 2 "
    "--dry-run"
)


_KINDS = (
    "sample-efficiency (training on several fractions of the labels), ablation (ConViT without "
    "some of its parts), pretraining (methods compared), baselines (pretraining compared with raw "
    "pixels, a frozen network and labels alone, at equal cost), or scores (which label-free scores "
    "predict accuracy)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    _add_compared(parser)
    _add_lengths(parser)
    _add_runs(parser)


def _add_compared(parser: argparse.ArgumentParser) -> None:
    """What is compared, on which images."""
    add = parser.add_argument
    add("kind", choices=KINDS, metavar="KIND", help=_KINDS)
    add(
        "--data",
        required=True,
        help="a built-in data set, imagenet, or folder, list, table or shards for your own",
    )
    add("--data-dir", help=DATA_DIR)
    add(
        "--trunks",
        nargs="+",
        default=["convit_nano", "deit_nano"],
        help="trunks to compare; networks of timm are named timm:NAME (sample-efficiency, "
        "pretraining)",
    )
    add(
        "--size",
        default="nano",
        help="size of the networks: nano, tiny, small or base (ablation, baselines, scores)",
    )
    add(
        "--presets",
        nargs="+",
        default=["table3"],
        help="ablations to run: table3, gpsa-layers, locality, positions",
    )
    add(
        "--methods",
        nargs="+",
        default=["dino", "simclr"],
        help="self-supervised methods to compare, or auto, which lets a race choose (pretraining, "
        "baselines)",
    )
    add(
        "--probe-epochs",
        type=positive,
        default=100,
        help="epochs of the linear probes (pretraining)",
    )
    add(
        "--runs",
        type=positive,
        default=30,
        help="number of networks, each with settings drawn at random (scores)",
    )
    add(
        "--minutes",
        type=above_zero,
        help="core-minutes per pretraining run, instead of --epochs (baselines)",
    )
    add("--subset", help="images to use, such as classes=first:60,per_class=4 (baselines, scores)")
    add(
        "--reference",
        action="append",
        default=[],
        metavar="NETWORK",
        help="frozen reference network: timm:NAME, timm:NAME=FILE, hf-hub:NAME, "
        "pypi:efficientnet_lite0 or a file (baselines)",
    )


def _add_lengths(parser: argparse.ArgumentParser) -> None:
    """How much of the labels, how often and for how long."""
    add = parser.add_argument
    add(
        "--fractions",
        nargs="+",
        type=float,
        help="fractions of the labelled images of each class, from 0 to 1 (default: "
        f"{' '.join(f'{fraction:g}' for fraction in study.FRACTIONS)}; 0.1 for ablation)",
    )
    add(
        "--images-per-class",
        type=positive,
        metavar="N",
        help="number of images per class that count as 100 %%",
    )
    add("--seeds", type=positive, default=3, help="number of seeds")
    add(
        "--epochs",
        type=positive,
        default=20,
        help="epochs at 100 %% of the images; smaller fractions train 1/fraction times as many",
    )
    add(
        "--no-scale-epochs",
        action="store_true",
        help="train for the same number of epochs at every fraction",
    )
    add(
        "--batch-size", type=positive, default=128, help="batch size of runs that learn from labels"
    )


def _add_runs(parser: argparse.ArgumentParser) -> None:
    """Weights to start from, the machine, and where results go."""
    add = parser.add_argument
    start: dict[str, Any] = {
        "nargs": "+",
        "default": [],
        "metavar": "TRUNK=CKPT",
        "dest": "weights",
    }
    add("--checkpoints", **start, help="also fine-tune these checkpoints")
    add("--weights", **start, action=Renamed, new="--checkpoints")
    weights_options.add_settings(parser)
    add("--no-scratch", action="store_true", help="only fine-tune, do not train from scratch")
    add(
        "--deit",
        action="store_true",
        help="also measure every row with DeiT, the plain ViT of the same size, and the paired "
        "differences (baselines)",
    )
    add(
        "--no-labels",
        action="store_true",
        help="skip the runs that are trained with labels (baselines)",
    )
    add("--run", default="cpu", help="machine preset of configs/run: cpu, gpu1, slurm, ...")
    add("--jobs", type=positive, default=1, help="number of runs at a time on this machine")
    add(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="extra options of every run, or of one experiment: convit_dino:KEY=VALUE",
    )
    division_options.add_arguments(parser)
    add(
        "--out",
        help="folder of the study (default: studies/<kind>_<data>; studies/scores for scores)",
    )
    add(
        "--reuse",
        metavar="STUDY",
        help="reuse finished runs with the same settings from this study folder",
    )
    add("--note", default="", help="paragraph for the result page, such as what you expect")
    add("--record", metavar="STEM", help="also write the result to the folder STEM")
    add("--dry-run", action="store_true", help="print the command of each run and exit")


def run(args: argparse.Namespace) -> int:
    """Plan, run, write."""
    out = Path(args.out or f"studies/{args.kind.replace('-', '_')}_{args.data}")
    refuse_others(args, _defaults(args))
    if not args.weights and all(map(is_hub_name, args.reference)):
        weights_options.refuse(args, "--checkpoints, or a file as --reference")
    if args.kind == BASELINES:
        return run_baselines(args, out)
    if args.kind == SCORES:
        return run_scores(args, Path(args.out or "studies/scores"))
    planned = plan(args)
    if args.dry_run:
        for one in planned.runs:
            print(shlex.join(one.command(out / "runs" / one.name)))
        return 0
    with watching(planned) as watch:
        states = run_study(planned, out, args.jobs, watch, reuse=args.reuse)
    if planned.kind == "pretraining":
        write_pretraining(planned, states, probe_runs(states, args, out), out, args.note)
    else:
        write_study(planned, states, out, args.note)
    if args.record:
        _record(planned, out, record_folder(args.record))
    return _close(planned, states, out)


def _defaults(args: argparse.Namespace) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([args.kind, "--data", args.data])


def _record(planned: study.Study, out: Path, place: Path) -> None:
    """Copies for a collection of results."""
    shutil.copyfile(out / "results.json", place / "result.json")
    shutil.copyfile(out / "results.md", place / "README.md")
    figure = out / f"{planned.kind.replace('-', '_')}.png"
    if figure.exists():
        shutil.copyfile(figure, place / "figure.png")


def _close(planned: study.Study, states: list[State], out: Path) -> int:
    if planned.kind == "pretraining":
        print((out / "results.md").read_text().partition("## ")[0].strip())
    elif not sys.stderr.isatty():
        Terminal().print(progress_table(planned, states))
    print(f"written: {out}/results.json, results.md and the figure")
    failed = [state for state in states if state.status == "failed"]
    for state in failed:
        print(f"failed: {state.run.name}: {state.message} ({state.folder}/study.log)")
    return 1 if failed else 0
