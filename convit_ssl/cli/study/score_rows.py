"""Rows of label-free scores: what is read of the images, and by which networks."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convit_ssl.cli.options.reading import refuse_processes
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.probe.references import plain_references
from convit_ssl.cli.probe.sources import Source
from convit_ssl.data.images import ImageFiles, take
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.opening import find_listing
from convit_ssl.errors import UserError
from convit_ssl.evaluation.label_free.scores import SCORES, gate_motion, label_free_scores
from convit_ssl.evaluation.label_free.views import RandomViews, ViewPixels, view_features
from convit_ssl.evaluation.processes import default_device
from convit_ssl.evaluation.progress import progress_bar

IMAGES, VIEWED = 2000, 300
FEWEST = 10
Row = dict[str, Any]


def measure(args: argparse.Namespace) -> list[Row]:
    """A row for raw pixels, for the untrained network and for the network, in this order.

    Raises:
        UserError: CKPT is not a network, or there are fewer than ten images.
    """
    refuse_processes(args, "scores")
    if probe_sources.is_features_folder(args):
        raise UserError(f"{args.checkpoint} holds features; scores needs the network itself")
    own = probe_sources.open_source(args)
    sources = [*plain_references(args, own), own]
    listing = find_listing(probe_sources.data_name(args), args.data_dir, args.split)
    if len(listing.files) < FEWEST:
        raise UserError(f"{len(listing.files)} images are too few for scores; give 10 or more")
    chosen = np.random.default_rng(0).permutation(len(listing.files))[: args.images]
    listing = take(listing, np.sort(chosen).tolist())
    features = [
        column_of(probe_sources.read_features(source, args, args.split, listing), args.token)
        for source in sources
    ]
    images = viewed_images(args, own, args.split, listing)
    rows = np.random.default_rng(0).permutation(len(images))[:VIEWED].tolist()
    device = args.device or default_device()
    asked: list[Callable[[Tensor], Tensor]] = [
        ViewPixels(), *(Tokens(source.extractor, args.token, device) for source in sources[1:])
    ]  # fmt: skip
    with progress_bar("random views", "images") as progress:
        views = view_features(asked, images, rows, device, progress)
    scored: list[Row] = []
    with progress_bar("scores", "networks") as progress:
        for source, vectors, viewed in zip(sources, features, views, strict=True):
            if progress is not None:
                progress(len(scored), len(sources), source.name)
            scored.append(score_row(source, vectors, viewed))
    return scored


def score_row(source: Source, features: Tensor, views: Tensor) -> Row:
    """What is said of one source.

    Args:
        source: a network, or pixels.
        features: (N, D) of images as they are.
        views: (images, views, D) of random views.
    """
    scores: dict[str, float | None] = {**label_free_scores(features, views)}
    model = getattr(source.extractor, "model", None)
    scores["gate_motion"] = gate_motion(model) if model is not None else None
    return {
        "name": source.name,
        "scores": {name: scores[name] for name in SCORES},
        "images": len(features),
        "viewed": len(views),
    }


def viewed_images(
    args: argparse.Namespace, own: Source, split: str, listing: Listing
) -> ImageFiles:
    """Some images in random views, of the size and channels that a network reads."""
    plain = probe_sources.open_images(args, split, own, listing)
    transform = own.transform
    native = plain.reading.native
    grey = not native and plain.is_grey()
    views = RandomViews(transform.size, transform.mean, transform.std, grey, native)
    source = dataclasses.replace(own, transform=views, reading=plain.reading)
    return probe_sources.open_images(args, split, source, listing)


class Tokens:
    """One column of a network's features.

    Args:
        extractor: `TokenFeatures`.
        token: which; the first by default.
        device: where it is computed.
    """

    def __init__(self, extractor: Any, token: str | None, device: Any) -> None:
        self.extractor = extractor.to(device).eval()
        self.span = slice(*extractor.layout[token or next(iter(extractor.layout))])

    def __call__(self, images: Tensor) -> Tensor:
        """Images to (B, D)."""
        found: Tensor = self.extractor(images)[:, self.span]
        return found


def column_of(features: Any, token: str | None) -> Tensor:
    """(N, D) of one kind of feature; pixels have one kind only."""
    name = token if token in features.columns else None
    return torch.from_numpy(np.array(features.column(name), np.float32))
