"""``convit-ssl bench``: speed and memory, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from convit_ssl.cli.help import HelpFormatter, sentence
from convit_ssl.errors import UserError

SUMMARY = (
    "measure speed and memory side by side: models, training steps, input pipelines, scaling, "
    "start-up"
)
_SIZES = "sizes of the network: nano, tiny, small, small_plus, base, base_plus"
_SIDES = "image sizes in pixels"
EXAMPLE = "convit-ssl bench model --sizes nano --sides 32 --images 4 --repeats 3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One set of options for each benchmark."""
    kinds = parser.add_subparsers(
        dest="kind",
        required=True,
        metavar="model|step|accumulate|data|scaling|startup|threads|linear|builds|cluster|all",
    )
    model = kinds.add_parser(
        "model",
        help="ConViT of this project, timm and VISSL, and a plain ViT: forward pass and training",
    )
    step = kinds.add_parser(
        "step", help="a DINO or SimCLR step compared with the published implementation"
    )
    accumulate = kinds.add_parser(
        "accumulate", help="a step on the whole batch compared with the same batch in parts"
    )
    data = kinds.add_parser("data", help="input pipelines: time per image and core")
    data.add_argument(
        "--formats",
        action="store_true",
        help="measure the time to read each image format instead, compared with its own library",
    )
    scaling = kinds.add_parser(
        "scaling", help="speed with 1, 2 and 4 processes, and time against image size"
    )
    startup = kinds.add_parser(
        "startup", help="time from the command to the first step, part by part"
    )
    threads = kinds.add_parser(
        "threads",
        help="one thread, several ways to use all cores, and a run's own choice, on a busy machine",
    )
    linear = kinds.add_parser(
        "linear", help="the linear probe over many classes, part by part, on synthetic features"
    )
    builds = kinds.add_parser(
        "builds",
        help="core-seconds and accuracy of training with the current source, compared with an "
        "earlier commit or with lightly",
    )
    cluster = kinds.add_parser(
        "cluster", help="estimate what 8, 64 and 512 GPUs need, from measured steps"
    )
    everything = kinds.add_parser(
        "all", help="run all benchmarks except builds and cluster, within a time limit"
    )
    everything.add_argument("--device", default="cpu", help="cpu or cuda")
    everything.add_argument("--minutes", type=float, default=30.0, help="time limit in minutes")
    everything.add_argument("--out", default="bench", help="folder for results and logs")
    _add_record((model, step, accumulate, data, scaling, startup, threads, linear, cluster))
    _add_outputs(builds)
    _add_networks((model, step, accumulate, scaling))
    _add_model(model)
    _add_steps(step, accumulate)
    _add_scaling(scaling)
    _add_threads(threads)
    _add_linear(linear)
    _add_builds(builds)
    _add_cluster(cluster)
    for listed in kinds._choices_actions:  # what the list of benchmarks says of each
        verb = "" if listed.dest in ("cluster", "all") else "measure "
        kinds.choices[listed.dest].description = sentence(f"{verb}{listed.help}")
        kinds.choices[listed.dest].formatter_class = HelpFormatter


def _add_record(kinds: Iterable[argparse.ArgumentParser]) -> None:
    """How often, and where it is written."""
    for kind in kinds:
        kind.add_argument("--device", default="cpu", help="cpu or cuda")
        kind.add_argument(
            "--repeats", type=int, default=9, help="number of rounds; the median counts"
        )
        _add_outputs(kind)


def _add_outputs(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--json", metavar="FILE", help="write everything measured to this file")
    kind.add_argument(
        "--markdown", metavar="FILE", help="write the tables and the command to this file"
    )
    kind.add_argument(
        "--add",
        action="store_true",
        help="add to the JSON file, and write the tables and the figure from all of it",
    )


def _add_networks(kinds: Iterable[argparse.ArgumentParser]) -> None:
    """Of benchmarks that run networks."""
    for kind in kinds:
        kind.add_argument("--threads", type=int, default=1, help="CPU threads")
        kind.add_argument("--dtype", nargs="+", default=["fp32"], choices=["fp32", "bf16", "fp16"],
            help="arithmetic of the networks")  # fmt: skip
        kind.add_argument(
            "--clock",
            choices=["wall", "cpu"],
            default="wall",
            help="clock: wall, or cpu, which counts only the thread's own time (for busy machines, "
            "one thread)",
        )
        kind.add_argument("--sizes", nargs="+", default=["tiny", "small"], help=_SIZES)


def _add_model(model: argparse.ArgumentParser) -> None:
    model.add_argument("--sides", nargs="+", type=int, default=[96, 224, 384, 512], help=_SIDES)
    model.add_argument("--images", type=int, default=8, help="batch size at 14 x 14 patches")
    model.add_argument(
        "--modes",
        nargs="+",
        default=["forward", "training"],
        help="what to measure: forward, training",
    )
    model.add_argument(
        "--contenders",
        nargs="+",
        default=["ours", "timm", "vissl", "vit"],
        help="implementations to compare: ours, timm, vissl, vit",
    )
    model.add_argument("--compile", action="store_true", help="use torch.compile")
    model.add_argument(
        "--figure", metavar="PNG", help="also plot images/s against image size to this file"
    )


def _add_steps(step: argparse.ArgumentParser, accumulate: argparse.ArgumentParser) -> None:
    step.add_argument("--images", type=int, default=2, help="batch size")
    accumulate.add_argument("--images", type=int, default=16, help="batch size")
    accumulate.add_argument(
        "--parts", nargs="+", type=int, default=[4], help="numbers of parts to split the batch into"
    )
    for kind in (step, accumulate):
        kind.add_argument(
            "--methods", nargs="+", default=["dino", "simclr"], help="methods to measure"
        )
        kind.add_argument(
            "--global-side", type=int, default=224, help="side of the global crops in pixels"
        )
        kind.add_argument(
            "--local-side", type=int, default=96, help="side of the local crops in pixels"
        )
        kind.add_argument("--local-crops", type=int, default=8, help="number of local crops")
        kind.add_argument("--out-dim", type=int, default=65536, help="outputs of DINO's head")


def _add_scaling(scaling: argparse.ArgumentParser) -> None:
    scaling.add_argument(
        "--figure", metavar="PNG", help="also plot milliseconds against image size to this file"
    )
    scaling.add_argument(
        "--sides", nargs="+", type=int, default=[96, 224, 384, 512, 768, 1024], help=_SIDES
    )
    scaling.add_argument(
        "--processes",
        nargs="*",
        type=int,
        default=[1, 2, 4],
        help="numbers of processes; without a number, only the growth with image size is measured",
    )
    scaling.add_argument("--images", type=int, default=2, help="batch size of each process")
    scaling.add_argument(
        "--side", type=int, default=96, help="image size of the runs in several processes"
    )


def _add_threads(threads: argparse.ArgumentParser) -> None:
    threads.add_argument("--sizes", nargs="+", default=["nano"], help=_SIZES)
    threads.add_argument("--side", nargs="+", type=int, default=[8], help=_SIDES)
    threads.add_argument(
        "--patch",
        nargs="+",
        type=int,
        default=[2],
        help="side of a patch in pixels: one for all image sizes, or one each",
    )
    threads.add_argument(
        "--images",
        nargs="+",
        type=int,
        default=[64],
        help="batch size: one for all image sizes, or one each",
    )
    threads.add_argument(
        "--neighbours",
        nargs="+",
        type=int,
        default=[0, 1, 4, 10],
        help="numbers of other busy processes on the machine",
    )
    threads.add_argument(
        "--seconds", type=float, default=5.0, help="length of a measurement in seconds"
    )
    threads.set_defaults(repeats=3)


def _add_linear(linear: argparse.ArgumentParser) -> None:
    linear.add_argument("--rows", type=int, default=100_000, help="number of training images")
    linear.add_argument("--classes", type=int, default=1000, help="number of classes")
    linear.add_argument("--width", type=int, default=192, help="number of channels of the features")
    linear.add_argument(
        "--whole",
        action="store_true",
        help="also train all learning rates to the end, step by step",
    )


def _add_builds(builds: argparse.ArgumentParser) -> None:
    add = builds.add_argument
    add(
        "--against",
        required=True,
        metavar="COMMIT",
        help="an earlier commit of this repository; or lightly, or lightly-adamw: SimCLR as "
        "lightly's example trains it (needs pip install lightly)",
    )
    add("--methods", nargs="+", default=["simclr", "dino"], help="methods to train with")
    add("--data", default="textures", help="built-in data set, or a kind of folder with --data-dir")
    add("--data-dir", help="folder of your own images")
    add("--trunk", default="convit_nano", help="network to train")
    add("--epochs", type=int, default=10, help="epochs of what is compared with")
    add(
        "--today-epochs",
        nargs="+",
        type=int,
        help="epochs of the current build, one comparison each (default: the same)",
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds to train with")
    add("--linear", action="store_true", help="also train the linear probe on the features")
    add(
        "--without-onednn",
        action="store_true",
        help="also train with the current build without oneDNN",
    )
    add(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of the runs that both builds know",
    )
    add(
        "--today-set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of the current build's runs only",
    )
    builds.set_defaults(device="cpu")


def _add_cluster(cluster: argparse.ArgumentParser) -> None:
    cluster.add_argument("--step", required=True, metavar="FILE", help="JSON file of `bench step`")
    cluster.add_argument("--data", required=True, metavar="FILE", help="JSON file of `bench data`")
    cluster.add_argument(
        "--gpus", nargs="+", type=int, default=[8, 64, 512], help="numbers of GPUs"
    )
    cluster.add_argument("--gpus-per-node", type=int, default=8, help="number of GPUs per node")
    cluster.add_argument(
        "--methods", nargs="+", default=["dino", "simclr"], help="methods: dino, simclr"
    )
    cluster.add_argument("--size", default="small", help=_SIZES.replace("sizes", "size"))


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    if args.kind == "all":
        return _run_all(args)
    from convit_ssl.bench import commands

    commands.run(args)
    return 0


def _run_all(args: argparse.Namespace) -> int:
    """Every benchmark; 1 if one failed, 0 also where the time was up."""
    from convit_ssl.bench.everything import commands, run_all

    if not 0 < args.minutes < float("inf"):
        raise UserError(f"--minutes {args.minutes:g}: give a number of minutes above 0")
    out = Path(args.out)
    outcomes = run_all(commands(args.device, out), out, args.minutes)
    print(f"written: {out}")
    return int(any(words.startswith("failed") for words in outcomes.values()))
