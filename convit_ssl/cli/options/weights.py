"""The options of every command that reads weights, and the one call that reads them."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

from convit_ssl.cli.options.values import above_zero, positive
from convit_ssl.errors import UserError
from convit_ssl.export.load import load_network, load_trunk
from convit_ssl.export.stated import INTERPOLATIONS
from convit_ssl.models import ConViT
from convit_ssl.models.trunks import Network
from convit_ssl.options import KEY, Option
from convit_ssl.weights_settings import WeightsSettings, loading_options

WHICH = (
    "weights to use: teacher, student, ema, or part of a key prefix in the file, such as "
    "momentum_backbone (default: teacher, or the only weights)"
)


def add_arguments(
    parser: argparse.ArgumentParser,
    role: str = "--weights",
    img_size: str | None = None,
    group: argparse._ArgumentGroup | None = None,
) -> None:
    """The options, in a group of their own.

    Args:
        parser: of the command.
        role: the option that says which of a file's weights are meant.
        img_size: help of --img-size, where it is more than what the file does not say.
        group: of the command's help, which takes the first two; by default its options.
    """
    first = parser if group is None else group
    first.add_argument(role, default="teacher", metavar="WHICH", help=WHICH)
    if img_size is not None:
        first.add_argument("--img-size", type=image_size, metavar="H,W", help=img_size)
    settings = add_settings(parser, None if img_size is not None else "--img-size")
    settings.add_argument(
        "--crop-ratio",
        type=above_zero,
        metavar="R",
        help="side of the centre crop divided by the side of the resized image",
    )
    settings.add_argument(
        "--interpolation", choices=INTERPOLATIONS, help="resampling used to resize images"
    )


def add_settings(
    parser: argparse.ArgumentParser, img_size: str | None = "--img-size"
) -> argparse._ArgumentGroup:
    """A flag for each of `WeightsSettings`: what every command that reads weights takes.

    Args:
        parser: of the command.
        img_size: name of the flag for `img_size`; None where the command has one already.
    """
    group = parser.add_argument_group(
        "weights of other projects", "settings that the weights file does not record"
    )
    for field in dataclasses.fields(WeightsSettings):
        about: Option = field.metadata[KEY]
        flag = img_size if field.name == "img_size" else "--" + field.name.replace("_", "-")
        if flag is None:
            continue
        more = {"choices": about.choices} if about.choices else _KINDS[field.name]
        group.add_argument(flag, help=_help(about.says), **more)
    return group


def _help(says: str) -> str:
    text = says.removesuffix(".")
    return text[0].lower() + text[1:]


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `add_settings` say, by the names of `WeightsSettings`."""
    values = {field.name: getattr(args, field.name, None) for field in _FIELDS}
    size = getattr(args, "weights_img_size", values["img_size"])
    values["img_size"] = (size, size) if isinstance(size, int) else size
    return {name: value for name, value in values.items() if value is not None}


def no_settings() -> dict[str, None]:
    """Attributes of parsed options that say nothing about a file of weights."""
    names = (field.name for field in _FIELDS)
    return dict.fromkeys((*names, "weights_img_size", "crop_ratio", "interpolation"))


def refuse(args: argparse.Namespace, needs: str, *, but: tuple[str, ...] = ()) -> None:
    """Refuse settings of weights where no weights are given.

    Args:
        args: parsed options of `add_settings`.
        needs: the option that names the weights.
        but: settings that mean something all the same.

    Raises:
        UserError: a setting is given.
    """
    given = next((name for name in settings_of(args) if name not in but), None)
    if given is not None:
        raise UserError(
            f"--{given.replace('_', '-')} has no effect without a file of weights; add {needs}"
        )


def overrides(args: argparse.Namespace) -> list[str]:
    """The same as options of training."""
    return [
        f"weights_settings.{name}={_written(value)}" for name, value in settings_of(args).items()
    ]


def _written(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


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
        **_said(args),
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
        **_said(args),
    )


def _said(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `load_trunk` beside its size."""
    found = loading_options(settings_of(args))
    found.pop("img_size", None)
    images = {name: getattr(args, name, None) for name in ("crop_ratio", "interpolation")}
    said = {name: value for name, value in images.items() if value is not None}
    return {**found, "images": {**found.get("images", {}), **said}}


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


_FIELDS = dataclasses.fields(WeightsSettings)
_KINDS: dict[str, dict[str, Any]] = {
    "num_heads": {"type": positive, "metavar": "N"},
    "eps": {"type": above_zero, "metavar": "X"},
    "img_size": {"type": image_size, "metavar": "H,W"},
    "mean": {"type": numbers, "metavar": "V"},
    "std": {"type": numbers, "metavar": "V"},
}
