"""Options of commands that show images: which channels, and in what colours."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--show`` and ``--colour-map``."""
    add = parser.add_argument
    add(
        "--show",
        metavar="R,G,B",
        help="channels to show as red, green and blue, or one in grey: numbers (the first is 1) or "
        "names, such as 3,2,1 or nir,red,green",
    )
    add(
        "--colour-map",
        metavar="NAME",
        help="matplotlib's colour map for images of one channel, such as viridis (default: grey)",
    )


def shown(args: argparse.Namespace) -> tuple[int | str, ...] | None:
    """The channels to show, by number from 0 on or by name; None for the usual ones.

    Raises:
        UserError: ``--show`` or ``--colour-map`` cannot be meant.
    """
    from convit_ssl.data.reading.colour_maps import check_colour_map
    from convit_ssl.data.reading.shown_channels import parse_show

    check_colour_map(args.colour_map)
    return parse_show(args.show) if args.show else None
