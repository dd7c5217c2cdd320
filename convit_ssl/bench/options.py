"""Options that cannot be measured or written, found before anything is measured."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from convit_ssl.bench import contenders, models
from convit_ssl.errors import UserError
from convit_ssl.machine import available_cores
from convit_ssl.methods import self_supervised

# The least that each number may be.
LEAST = {
    "repeats": 1, "threads": 1, "images": 1, "sides": 1, "side": 1, "global_side": 1,
    "local_side": 1, "local_crops": 0, "out_dim": 1, "processes": 1, "parts": 2,
    "patch": 1, "neighbours": 0, "seconds": 0.1, "gpus": 1, "gpus_per_node": 1,
    "rows": 4, "classes": 2, "width": 1, "epochs": 1, "today_epochs": 1, "seeds": 0,
}  # fmt: skip
MOST_NEIGHBOURS = 64  # busy loops; a slip of the finger should not stop a machine
MOST_SECONDS = 60.0  # of a measurement, so that neighbours outlast those of all arms
# Lists in which nothing counts twice.
SETS = (
    "sizes",
    "sides",
    "dtype",
    "modes",
    "contenders",
    "methods",
    "processes",
    "parts",
    "neighbours",
    "gpus",
    "today_epochs",
    "seeds",
)
OUTPUTS = ("json", "markdown", "figure")


def check_options(args: argparse.Namespace) -> None:
    """Refuse what cannot be meant, and leave out what is named twice.

    Raises:
        UserError: with the option, its value and what it may be.
    """
    for option in SETS:
        if hasattr(args, option):
            setattr(args, option, list(dict.fromkeys(getattr(args, option) or ())))
    _check_device(args.device)
    _check_numbers(args)
    _check_names(args)
    _check_sides(args)
    _check_outputs(args)
    if args.kind == "linear" and args.rows < 2 * args.classes:
        raise UserError(
            f"--rows {args.rows}: give at least two for each of the {args.classes:,} classes"
        )
    on_one_thread = getattr(args, "threads", 1) == 1 and torch.device(args.device).type == "cpu"
    if getattr(args, "clock", "wall") == "cpu" and not on_one_thread:
        raise UserError("--clock cpu counts one thread; it needs --threads 1 and --device cpu")


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: give cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: give cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: PyTorch {torch.__version__} sees no CUDA device here")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: there are {torch.cuda.device_count()} GPUs")


def _check_numbers(args: argparse.Namespace) -> None:
    for option, least in LEAST.items():
        given = getattr(args, option, least)
        for value in given if isinstance(given, list) else [given]:
            if not value >= least:  # NaN is refused, too
                raise UserError(f"{_flag(option)} {value}: give at least {least}")
    if max(getattr(args, "neighbours", [0])) > MOST_NEIGHBOURS:
        raise UserError(f"--neighbours {max(args.neighbours)}: give at most {MOST_NEIGHBOURS}")
    for parts in getattr(args, "parts", []):
        if args.images % parts:
            fitting = max(args.images // parts, 1) * parts
            raise UserError(
                f"--images {args.images} does not divide into --parts {parts}; use {fitting}"
            )


def _check_names(args: argparse.Namespace) -> None:
    valid = {"contenders": tuple(contenders.CONTENDERS), "modes": models.MODES}
    if args.kind == "step":
        from convit_ssl.bench import steps

        valid["methods"] = steps.METHODS
    if args.kind in ("accumulate", "builds"):
        valid["methods"] = self_supervised()
    for option, names in valid.items():
        for name in getattr(args, option, []):
            if name not in names:
                raise UserError(f"--{option} {name}: choose from {', '.join(names)}")


def _check_sides(args: argparse.Namespace) -> None:
    if args.kind == "threads":
        _check_threads(args)
        return
    for size in getattr(args, "sizes", []):
        contenders.size_config(size, 224)
        for option, side in _sides(args):
            try:
                contenders.size_config(size, side)
            except UserError as error:
                raise UserError(f"{_flag(option)} {side}: {error}") from error


def _check_threads(args: argparse.Namespace) -> None:
    for size in args.sizes:
        contenders.size_config(size, 224)
    if args.device != "cpu":
        raise UserError(f"--device {args.device}: threads are measured on the CPU")
    if args.seconds > MOST_SECONDS:
        raise UserError(f"--seconds {args.seconds:g}: give at most {MOST_SECONDS:g}")
    for option in ("patch", "images"):
        given = getattr(args, option)
        if len(given) not in (1, len(args.side)):
            raise UserError(
                f"--{option} has {len(given)} values for {len(args.side)} of --side; give one, or "
                "one for each side"
            )
    patches = args.patch * len(args.side) if len(args.patch) == 1 else args.patch
    for side, patch in zip(args.side, patches, strict=True):
        if side % patch:
            raise UserError(f"--side {side} is not a multiple of --patch {patch}")
    if fewer := [images for images in args.images if images < available_cores()]:
        raise UserError(f"--images {fewer[0]}: give at least one for each of the cores")


def _sides(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Every image side in pixels that will be measured, with its option."""
    for side in getattr(args, "sides", []):
        yield "sides", side
    if getattr(args, "processes", []):
        yield "side", args.side
    if args.kind in ("step", "accumulate"):
        yield "global_side", args.global_side
        yield "local_side", args.local_side


def _check_outputs(args: argparse.Namespace) -> None:
    for option in OUTPUTS:
        path = getattr(args, option, None)
        if path and Path(path).is_dir():
            raise UserError(f"--{option} {path} is a folder; give a file")
    figure = getattr(args, "figure", None)
    if figure:
        from matplotlib.backend_bases import FigureCanvasBase

        kinds = sorted(FigureCanvasBase.filetypes)
        if Path(figure).suffix[1:].lower() not in kinds:
            raise UserError(
                f"--figure {figure}: the name of a figure must end in .{', .'.join(kinds)}"
            )


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
