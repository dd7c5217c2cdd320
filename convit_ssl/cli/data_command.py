"""``convit-ssl data``: write a built-in data set as an image folder."""

from __future__ import annotations

import argparse
import shutil
import textwrap

SUMMARY = "Write a built-in data set as an image folder (train/<class>/, val/<class>/)."
EXAMPLE = "convit-ssl data digits --out digits_images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    from convit_ssl.data.sources.openclipart import HOW_TO_GET

    sources = (
        "elpv: pip install elpv-dataset (licence CC BY-NC-SA 4.0).",
        f"{HOW_TO_GET}.",
        "fashion_mnist: Debian's dataset-fashion-mnist, or torchvision's download.",
    )
    width = shutil.get_terminal_size().columns - 2
    lines = (
        textwrap.fill(source, width, subsequent_indent="  ", break_on_hyphens=False)
        for source in sources
    )
    parser.epilog = "\n".join([parser.epilog or "", "", *lines]).lstrip()
    add = parser.add_argument
    add("name", help="digits, mnist5k, fashion_mnist, textures, elpv or openclipart")
    parser.add_argument("--out", help="folder to write to (default: the cache that training uses)")
    parser.add_argument("--data-dir", help="folder of the original files (see below)")


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    from convit_ssl.data.listing.folders import find_images
    from convit_ssl.data.listing.split_folders import SPLITS
    from convit_ssl.data.sources.builtin import get_source, materialise
    from convit_ssl.evaluation.progress import progress_bar

    with progress_bar(f"writing {args.name}", "images"):
        folder = materialise(args.name, args.out, args.data_dir)
    size = get_source(args.name).native_size
    pixels = f", {size[0]} x {size[1]} pixels" if size else ""
    print(f"{args.name}: {folder}")
    for split in SPLITS:
        if not (folder / split).is_dir():
            continue
        listing = find_images(folder, split)
        print(
            f"  {split:<5}  {len(listing.files):>6,} images, {len(listing.classes)} classes{pixels}"
        )
    if args.out:
        print(f"train on it: convit-ssl train config=convit_dino data=folder data_dir={folder}")
    else:
        print(f"train on it: convit-ssl train config=convit_dino data={args.name}")
    return 0
