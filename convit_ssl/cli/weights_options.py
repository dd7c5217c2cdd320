"""The options of every command that reads weights, and the one call that reads them."""

from __future__ import annotations

import argparse
import os
from typing import Any

from convit_ssl.cli.values import above_zero, positive
from convit_ssl.export.load import load_network, load_trunk
from convit_ssl.export.stated import ACTIVATIONS, INTERPOLATIONS
from convit_ssl.models import ConViT
from convit_ssl.models.trunks import Network

WHICH = (
    "which weights: teacher, student, ema, or part of a key prefix in the file, such as "
    "momentum_backbone"
)


def add_arguments(
    parser: argparse.ArgumentParser, role: str = "--weights", img_size: str | None = None
) -> None:
    """The options, in a group of their own.

    Args:
        parser: of the command.
        role: the option that says which of a file's weights are meant.
        img_size: help of --img-size; None leaves it out.
    """
    add = parser.add_argument
    add(role, default="teacher", metavar="WHICH", help=WHICH)
    if img_size is not None:
        add("--img-size", type=image_size, metavar="H W", help=img_size)
    add = parser.add_argument_group(
        "weights of other projects", "settings that the weights file does not record"
    ).add_argument
    add("--num-heads", type=positive, metavar="N", help="number of attention heads of a plain ViT")
    add(
        "--eps",
        type=above_zero,
        metavar="X",
        help="epsilon of the LayerNorms, such as 1e-6 or 1e-5",
    )
    add(
        "--activation",
        choices=tuple(dict.fromkeys(ACTIVATIONS.values())),
        help="activation of the MLPs",
    )
    add(
        "--mean",
        type=numbers,
        metavar="V",
        help="per-channel mean, for values from 0 to 1",
    )
    add("--std", type=numbers, metavar="V", help="per-channel standard deviation, likewise")
    add(
        "--crop-ratio",
        type=above_zero,
        metavar="R",
        help="side of the centre crop divided by the side of the resized image",
    )
    add("--interpolation", choices=INTERPOLATIONS, help="resampling used to resize images")


def read_trunk(
    args: argparse.Namespace, path: str | os.PathLike[str], role: str = "weights", **more: Any
) -> ConViT:
    """`load_trunk` with what the command's options say.

    Args:
        args: parsed options of `add_arguments`.
        path: the weights.
        role: attribute of `args` that says which of them.
        more: further arguments of `load_trunk`.
    """
    more.setdefault("img_size", getattr(args, "img_size", None))
    return load_trunk(
        path,
        weights=getattr(args, role),
        num_heads=args.num_heads,
        eps=args.eps,
        activation=args.activation,
        images=_images(args),
        **more,
    )


def read_network(
    args: argparse.Namespace, path: str | os.PathLike[str], num_classes: int | None = None
) -> Network:
    """`load_network` with what the command's options say: the network may be of any kind.

    Args:
        args: parsed options of `add_arguments`.
        path: the weights.
        num_classes: 0 leaves a classifier out.
    """
    return load_network(
        path,
        num_classes=num_classes,
        weights=args.weights,
        img_size=getattr(args, "img_size", None),
        num_heads=args.num_heads,
        eps=args.eps,
        activation=args.activation,
        images=_images(args),
    )


def _images(args: argparse.Namespace) -> dict[str, Any]:
    images = {name: getattr(args, name) for name in ("mean", "std", "crop_ratio", "interpolation")}
    return {name: value for name, value in images.items() if value is not None}


def image_size(text: str) -> int | tuple[int, int]:
    """``224``, or height and width as ``128,512`` or ``128x512``."""
    sides = [positive(side) for side in text.replace("x", ",").split(",")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not one number, or height and width")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def numbers(text: str) -> tuple[float, ...]:
    """``0.5``, or one number per channel as ``0.5,0.5,0.5``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0.5,0.5,0.5") from None
