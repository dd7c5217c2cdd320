"""The images of a baselines study, for training with labels and for probes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import nn

from convit_ssl.cli import knn_command
from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.probe import division as probe_division
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.study.plan import whole
from convit_ssl.data import ImageFiles, open_dataset
from convit_ssl.data.augment.spec import AugmentConfig, CropConfig, build_augmentation
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.engines.options.compose import compose_experiment

LEAST_SCALE = 0.25  # of an image's area in a crop that labels are learned from


class StudyImages:
    """Opens the images of a study in the same way for every row.

    Args:
        args: of the command.
        cache: folder for features.

    Raises:
        UserError: there is nothing to test on.
    """

    def __init__(self, args: argparse.Namespace, cache: Path) -> None:
        self.args, self.cache = args, cache
        self.options = self.probing(0)
        self.spec = self.options.spec
        self._reading: Reading | None = None

    def learned(self, transform: Any) -> ImageFiles:
        """Those that are learned from."""
        args = self.args
        return open_dataset(
            args.data, args.data_dir, "train", transform, self.options.subset,
            division=self.spec or None, reading=self.reading(),
        )  # fmt: skip

    @property
    def part(self) -> str:
        """What is tested on, in words."""
        return "the held-out part" if self.options.division is not None else str(self.options.on)

    def tested(self, transform: Any) -> ImageFiles:
        """Those that are tested on; unreadable ones are left out."""
        args = self.args
        part = "val" if self.options.division is not None else self.options.on
        return open_dataset(
            args.data, args.data_dir, part, transform, self.options.subset,
            division=self.spec or None, reading=self.reading(), max_corrupt=1.0, replace=False,
        )  # fmt: skip

    def reading(self) -> Reading:
        """How files become pixels, found out once from the images of train."""
        if self._reading is None:
            source = probe_sources.Source("", nn.Identity(), None, {})
            self._reading = probe_sources.open_images(self.options, "train", source).reading
        return self._reading

    def augmentation(self, size: Any) -> Any:
        """Crops, and mirror images where the collection's settings allow them."""
        composed = compose_experiment(["config=convit_supervised", f"data={self.args.data}"])
        asked = composed.tree.augmentation
        least = max(LEAST_SCALE, asked.min_crop_scale or 0.0)
        flip = 0.5 if asked.horizontal_flip is None else asked.horizontal_flip
        if not isinstance(flip, (int, float)):
            flip = float(flip[0])  # of the first large crop
        crop = CropConfig(size, scale=(least, 1.0), horizontal_flip=flip)
        return build_augmentation(AugmentConfig((crop,)), "fast")

    def probing(self, seed: int, checkpoint: str = "pixels") -> argparse.Namespace:
        """The options of a probe on this study's images."""
        args = self.args
        parser = argparse.ArgumentParser()
        knn_command.add_arguments(parser)
        words = ["--data", args.data, "--seed", str(seed), "--cache", str(self.cache)]
        words += ["--references"]
        words += ["--data-dir", args.data_dir] if args.data_dir else []
        subset = args.subset or whole(args)
        words += ["--subset", subset] if subset else []
        asked = parser.parse_args([checkpoint, *words])
        for name in ("holdout", "group_by", "labels", "split", "split_seed"):
            setattr(asked, name, getattr(args, name))
        asked.spec = division_options.spec_of(asked)
        probe_division.prepare(asked, folds=False)
        return asked
