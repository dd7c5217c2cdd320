"""``convit-ssl data``: write a built-in data set as an image folder."""

from __future__ import annotations

import argparse

SUMMARY = "Write a built-in data set as an image folder (train/<class>/, val/<class>/)."
EXAMPLE = "convit-ssl data digits --out digits_images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("name", help="digits, mnist5k, fashion_mnist or textures")
    parser.add_argument("--out", help="folder to write (default: the cache that training uses)")
    parser.add_argument("--data-dir", help="folder of the original files, for fashion_mnist")


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    from convit_ssl.data.folders import find_images
    from convit_ssl.data.sources import get_source, materialise

    folder = materialise(args.name, args.out, args.data_dir)
    size = get_source(args.name).native_size
    pixels = f", {size[0]} x {size[1]} pixels" if size else ""
    print(f"{args.name}: {folder}")
    for split in ("train", "val"):
        listing = find_images(folder, split)
        print(
            f"  {split:<5}  {len(listing.files):>6,} images, {len(listing.classes)} classes{pixels}"
        )
    if args.out:
        print(f"train on it: convit-ssl train config=convit_dino data=folder data_dir={folder}")
    else:
        print(f"train on it: convit-ssl train config=convit_dino data={args.name}")
    return 0
