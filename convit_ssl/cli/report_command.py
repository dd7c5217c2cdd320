"""``convit-ssl report``: the locality report of runs, or the comparison page of a study."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading
from pathlib import Path

from convit_ssl.analysis.attribution import METHODS
from convit_ssl.analysis.report import write_report
from convit_ssl.analysis.run_panels import read_check
from convit_ssl.analysis.runs import read_runs
from convit_ssl.analysis.sampling import (
    open_sample,
    recorded_annotations,
    recorded_data,
    recorded_reading,
)
from convit_ssl.analysis.summary import STAGES, summarise_run
from convit_ssl.cli.options import showing as showing_options
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.engines.launch.early_signals import say
from convit_ssl.errors import UserError
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.models.trunks import Network
from convit_ssl.runs import RunFolder

SUMMARY = "write an HTML report of one or more runs, or of a study's results.json"
EXAMPLE = "convit-ssl report runs/convit_dino_digits runs/deit_dino_digits --out reports/digits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folder, or results.json of a study")
    add("--out", type=Path, help="output folder (default: report/ in the first run)")
    add("--data", help="data set to evaluate on (default: that of the first run)")
    add("--data-dir", help="folder of the data set")
    add("--split", choices=("train", "val"), help="split to use (default: val if there is one)")
    add(
        "--images",
        type=int,
        default=300,
        help="number of images in the feature map, also used for nearest neighbours",
    )
    showing_options.add_arguments(parser)
    add(
        "--check",
        type=Path,
        metavar="CHECK",
        help="folder written by `convit-ssl check`, to show what it found",
    )
    add("--image", type=Path, action="append", default=[], help="draw attention maps of this image")
    weights_options.add_arguments(parser)
    add(
        "--attribution",
        default=METHODS[0],
        choices=METHODS,
        help="attribution method, for models with a classifier",
    )
    add(
        "--layout",
        default="auto",
        choices=("auto", "pca", "umap"),
        help="layout of the feature map",
    )
    add("--no-figures", action="store_true", help="do not write PNG files")
    add("--watch", action="store_true", help="rewrite the page whenever the run makes progress")
    add("--every", type=float, default=20.0, help="seconds between two checks with --watch")


def run(args: argparse.Namespace) -> int:
    """Write the page; with --watch until interrupted."""
    if args.images < 3:
        raise UserError(f"--images {args.images}: a feature map needs at least 3")
    studies = [path for path in args.runs if path.suffix == ".json"]
    if studies:
        return _compare(args, studies)
    folder = args.out or args.runs[0] / "report"
    seen = _write(args, folder, first=True)
    if args.watch:
        _follow(args, folder, seen)
    return 0


def _follow(args: argparse.Namespace, folder: Path, seen: list[float]) -> None:
    """Rewrite the page whenever the run makes progress, until asked to stop."""
    stopped = threading.Event()
    by: list[str] = []

    def stop(number: int, frame: object) -> None:
        # No exception: one that is raised inside a destructor is printed and forgotten.
        by.append(signal.Signals(number).name)
        stopped.set()
        signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not want to wait

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stopped.wait(max(args.every, 1.0)):
            if (now := _stamp(args.runs)) != seen:
                seen = now
                _write(args, folder, first=False)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    say(f"convit-ssl report: stopped by {by[0]}; the page stays as it is")


def _write(args: argparse.Namespace, folder: Path, first: bool) -> list[float]:
    stamp = _stamp(args.runs)
    show = showing_options.shown(args)
    runs = read_runs(args.runs)
    name, data_dir = recorded_data(runs[0].config)
    given = args.data or args.data_dir
    labels = None if given else recorded_annotations(runs[0].folder, runs[0].config)[0]
    data_dir = args.data_dir or (None if args.data else data_dir)
    sample, problem = open_sample(
        args.data or name,
        data_dir,
        args.split,
        args.images,
        args.image,
        reading=recorded_reading(runs[0]),
        show=show,
        colour_map=args.colour_map,
        labels=labels,
    )
    nothing = sample is None or not sample.labelled
    if problem and nothing and first and (args.data or args.data_dir or args.split):
        raise UserError(problem)  # what the run recorded may be gone; what was given is meant
    if first and args.weights != "teacher":
        for found in args.runs:
            weights_options.read_network(args, found)

    checked = read_check(args.check) if args.check else None

    def load(path: Path) -> Network:
        return weights_options.read_network(args, path)

    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    refresh = round(args.every) if args.watch else None
    figures = not args.no_figures and not args.watch
    steps = len(STAGES) * len(runs) + 1
    with progress_bar("report" if first else "", "steps") as progress:
        summaries = []
        for done, one in enumerate(runs):

            def stage(name: str, run: str = one.name, before: int = done * len(STAGES)) -> None:
                if progress:
                    progress(before + STAGES.index(name), steps, f"{name} of {run}")

            summaries.append(
                summarise_run(one, load, sample, args.attribution, layout=args.layout, stage=stage)
            )
        summaries[0].check = checked
        if problem:
            summaries[0].problems.append(problem)
        if progress:
            progress(steps - 1, steps, "figures and page")
        page = write_report(summaries, folder, command, figures, refresh)
    print(f"{'written' if first else 'refreshed'}: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    for summary in summaries if first else []:
        for text in summary.problems:
            print(f"  {summary.run.name}: {text}")
    return stamp


def _stamp(folders: list[Path]) -> list[float]:
    """Changes whenever a run has written a measurement or a checkpoint."""
    paths = [path for folder in folders for path in RunFolder(folder).watched]
    return [path.stat().st_mtime if path.exists() else 0.0 for path in paths]


def _compare(args: argparse.Namespace, studies: list[Path]) -> int:
    from convit_ssl.analysis.comparison import write_comparison

    if len(studies) != len(args.runs):
        raise UserError("give either run folders or results.json files, not both")
    page = write_comparison(studies, args.out or studies[0].parent / "comparison")
    print(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0
