"""The networks of ``convit-ssl segment``: each with its own patch, size and normalisation."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from torch import nn

from convit_ssl.cli.probe import references as probe_references
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.probe.references import Missing
from convit_ssl.cli.probe.sources import Source
from convit_ssl.cli.segment.images import MapTransform
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.frozen import FrozenFeatures, FrozenMaps, FrozenTransform
from convit_ssl.models import ConViT
from convit_ssl.models.trunks import OtherTrunk

# Of raw pixels beside a convolutional network, whose places may be 32 pixels apart.
PIXEL_PATCH = 16


@dataclass(frozen=True)
class MapSource:
    """A network as a source of maps of features.

    Attributes:
        name: for the table.
        network: with `get_intermediate_layers`; None gives raw pixels.
        patch: pixels of a patch.
        transform: of its images.
        reading: how files become pixels.
    """

    name: str
    network: nn.Module | None
    patch: int
    transform: MapTransform
    reading: Reading

    def as_source(self) -> Source:
        """What `probe_sources.open_images` takes."""
        network = self.network if self.network is not None else nn.Identity()
        return Source(self.name, network, self.transform, {}, self.reading)


def map_sources(args: argparse.Namespace) -> tuple[list[MapSource], list[Missing]]:
    """The references and, last, the network itself; and references that are not here.

    Raises:
        UserError: CKPT gives no maps of features.
    """
    opened = probe_sources.open_source(args)
    own = of_source(opened, args)
    if not (args.references or args.reference):
        return [own], []
    side = PIXEL_PATCH if own.patch % PIXEL_PATCH == 0 else own.patch
    found, missing = [MapSource("raw pixels", None, side, own.transform, own.reading)], []
    model: Any = getattr(opened.extractor, "model", None)
    if isinstance(model, (ConViT, OtherTrunk)) and not args.checkpoint.startswith("random:"):
        found.append(of_source(probe_sources.untrained_like(model, args), args))
    for name in args.reference:
        one = probe_references.frozen_source(name, args)
        if isinstance(one, Missing):
            missing.append(one)
        else:
            found.append(of_source(one, args, resized=False))
    if not args.reference:
        missing.append(probe_references.not_asked())
    return [*found, own], missing


def of_source(source: Source, args: argparse.Namespace, resized: bool = True) -> MapSource:
    """A source of features as one of maps.

    Args:
        source: what is opened.
        args: the command's options.
        resized: whether --img-size is for this network.

    Raises:
        UserError: it has no maps.
    """
    model: Any = getattr(source.extractor, "model", None)
    given: tuple[int, int] | None = None
    if isinstance(model, ConViT):
        network: nn.Module = model
        patch = int(model.config.patch_size)
        mean, std = source.transform.mean, source.transform.std
        given = model.config.image_shape if args.img_size is not None and resized else None
    elif isinstance(source.extractor, FrozenFeatures):
        published: FrozenTransform = source.transform
        network = FrozenMaps(model, source.name, published.config["input_size"])
        patch, given = network.patch, network.size
        mean, std = published.mean, published.std
    elif isinstance(model, OtherTrunk):
        shape = (len(source.transform.mean), *model.config.image_shape)
        network = FrozenMaps(model.network, source.name, shape)
        patch, given = network.patch, network.size
        mean, std = source.transform.mean, source.transform.std
    else:
        raise UserError("segment reads patch features; give a checkpoint as CKPT")
    transform = MapTransform(patch, args.longest, given, mean, std)
    return MapSource(source.name, network.eval(), patch, transform, source.reading)
