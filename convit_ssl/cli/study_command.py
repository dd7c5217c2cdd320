"""``convit-ssl study``: sample-efficiency and ablation studies."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console

from convit_ssl.data import open_dataset
from convit_ssl.errors import UserError
from convit_ssl.evaluation import study
from convit_ssl.evaluation.study_report import progress_table, write_study
from convit_ssl.evaluation.study_runner import State, run_study
from convit_ssl.evaluation.study_screen import watching
from convit_ssl.models import VARIANTS

SUMMARY = "train a whole study: several networks, shares of the labels and seeds; resumable"
EXAMPLE = (
    "convit-ssl study sample-efficiency --data digits --fractions 0.3 1 --seeds 1 --epochs 2 "
    "--dry-run"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("kind", choices=("sample-efficiency", "ablation"))
    add("--data", required=True, help="digits, mnist5k, fashion_mnist, imagenet or folder")
    add("--data-dir", help="folder with train/<class>/ and val/<class>/")
    add("--trunks", nargs="+", default=["convit_nano", "deit_nano"], help="of sample-efficiency")
    add("--size", default="nano", help="of the ablation's networks: nano, tiny, small, base")
    add("--presets", nargs="+", default=["table3"], help="table3, gpsa-layers, locality")
    add("--fractions", nargs="+", type=float, help="of the images of each class, 0..1")
    add("--images-per-class", type=int, metavar="N", help="N of each class are the 100 %%")
    add("--seeds", type=int, default=3, help="how many")
    add("--epochs", type=int, default=20, help="at 100 %% of the images; 1/fraction times more")
    add("--no-scale-epochs", action="store_true", help="the same epochs at every fraction")
    add("--batch-size", type=int, default=128)
    add("--weights", nargs="+", default=[], metavar="TRUNK=CKPT", help="also fine-tune from these")
    add("--no-scratch", action="store_true", help="only fine-tune")
    add("--run", default="cpu", help="group of configs/run: cpu, gpu1, slurm, ...")
    add("--jobs", type=int, default=1, help="runs at once on this machine")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further settings of every run")
    add("--out", help="folder of the study; studies/<kind>_<data>")
    add("--dry-run", action="store_true", help="print the command of each run, and stop")


def run(args: argparse.Namespace) -> int:
    """Plan, run, write."""
    planned = plan(args)
    out = Path(args.out or f"studies/{args.kind.replace('-', '_')}_{args.data}")
    if args.dry_run:
        for one in planned.runs:
            print(shlex.join(one.command(out / "runs" / one.name)))
        return 0
    with watching(planned) as watch:
        states = run_study(planned, out, args.jobs, watch)
    write_study(planned, states, out)
    return _close(planned, states, out)


def plan(args: argparse.Namespace) -> study.Study:
    """The study that the arguments describe; checks what can be checked before it starts."""
    scaled, words = not args.no_scale_epochs, tuple(args.set)
    few = args.images_per_class
    settings = study.Settings(
        args.data, args.data_dir, args.epochs, args.batch_size, args.run, scaled, words, few
    )
    seeds = range(args.seeds)
    subset = None if few is None else f"per_class={few}"
    images = len(open_dataset(args.data, args.data_dir, "train", subset=subset))
    if args.kind == "sample-efficiency":
        fractions = args.fractions or study.FRACTIONS
        weights = dict(_pair(text) for text in args.weights)
        planned = study.sample_efficiency(
            args.trunks, settings, fractions, seeds, weights, not args.no_scratch
        )
    else:
        fractions = args.fractions or (0.1,)
        if f"convit_{args.size}" not in VARIANTS or f"deit_{args.size}" not in VARIANTS:
            raise UserError(f"unknown size {args.size!r}; use nano, tiny, small or base")
        depth = VARIANTS[f"convit_{args.size}"].depth
        planned = study.ablation(args.size, settings, args.presets, fractions, seeds, depth)
    study.check_batch(settings, images, planned.fractions)
    return planned


def _pair(text: str) -> tuple[str, str]:
    trunk, equals, path = text.partition("=")
    if not equals or not Path(path).exists():
        raise UserError(f"--weights takes TRUNK=CKPT with an existing file or run, found {text!r}")
    return trunk, path


def _close(planned: study.Study, states: list[State], out: Path) -> int:
    if not sys.stderr.isatty():
        Console(highlight=False).print(progress_table(planned, states))
    print(f"written: {out}/results.json, results.md and the figure")
    failed = [state for state in states if state.status == "failed"]
    for state in failed:
        print(f"failed: {state.run.name}: {state.message} ({state.folder}/study.log)")
    return 1 if failed else 0
