"""``convit-ssl attention``: the attention maps of one image, as a figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from convit_ssl.cli.options import showing as showing_options
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.options.values import Renamed, positive
from convit_ssl.errors import UserError

SUMMARY = "draw the attention maps of one image as PNG, SVG or PDF"
EXAMPLE = "convit-ssl attention photo.jpg --checkpoint runs/convit_dino_digits --out attention.pdf"
ENDINGS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE", help="image file of any size")
    add("--checkpoint", metavar="CKPT", help="checkpoint, run folder or weights file (required)")
    sizes = "image size in pixels (default: the model's own)"
    weights_options.add_arguments(parser, img_size=sizes)
    add("--which", dest="weights_of_which", action=Renamed, new="--weights", metavar="WHICH")
    add("--out", type=Path, default=Path("attention.png"), help=f"file ({', '.join(ENDINGS)})")
    add(
        "--layers",
        type=_numbers,
        help="layers to draw, such as 0,4,9 (default: four, evenly spaced)",
    )
    add("--head", type=int, help="draw one head (default: mean over heads)")
    add("--query", type=_numbers, help="row,column of the query patch (default: the centre)")
    showing_options.add_arguments(parser)
    add("--dpi", type=positive, default=300, help="resolution of a PNG")


def run(args: argparse.Namespace) -> int:
    """Draw one figure."""
    _take_old_names(args)
    if args.out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {args.out}: the name must end in {', '.join(ENDINGS)}")
    if args.query is not None and len(args.query) != 2:
        raise UserError("--query takes a row and a column, such as --query 3,5")
    from convit_ssl.analysis.attention import image_attention
    from convit_ssl.analysis.attention_figure import attention_figure
    from convit_ssl.analysis.images import open_image, prepare_image
    from convit_ssl.drawing import save_figure
    from convit_ssl.evaluation.progress import progress_bar
    from convit_ssl.export import reading_of

    show = showing_options.shown(args)
    model = weights_options.read_trunk(args, args.checkpoint)
    image = open_image(args.image, reading_of(model), show=show, colour_map=args.colour_map)
    with progress_bar("drawing attention maps", "figures"):
        maps = image_attention(model, prepare_image(image, model, args.image.name))
        query = None if args.query is None else (args.query[0], args.query[1])
        figure = attention_figure(maps, args.layers, args.head, query)
        save_figure(figure, args.out, args.dpi)
    rows, columns = maps.image.grid
    print(f"written: {args.out} ({rows} x {columns} patches, {len(maps.layers)} layers)")
    return 0


def _take_old_names(args: argparse.Namespace) -> None:
    """--weights used to be the checkpoint here, and --which what --weights is elsewhere.

    Raises:
        UserError: there is no checkpoint.
    """
    if args.checkpoint is None and args.weights != "teacher":
        print("note: --weights CKPT has been renamed to --checkpoint CKPT", file=sys.stderr)
        args.checkpoint, args.weights = args.weights, "teacher"
    if args.weights_of_which is not None:
        args.weights = args.weights_of_which
    if args.checkpoint is None:
        raise UserError("attention needs the network: --checkpoint CKPT")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0,4,9") from None
