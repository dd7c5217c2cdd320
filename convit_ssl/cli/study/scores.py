"""``convit-ssl study scores``: which label-free score ranks networks as their accuracy does?

Small networks are trained with methods, rates, views and lengths drawn at random. Each is scored
without labels and tested with them. Rank correlations say what a score is worth.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.probe import division as probe_division
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.study.baselines_images import StudyImages
from convit_ssl.cli.study.plan import refuse_other_settings
from convit_ssl.cli.study.score_rows import (
    IMAGES,
    VIEWED,
    Tokens,
    column_of,
    score_row,
    viewed_images,
)
from convit_ssl.cli.study.scores_write import write
from convit_ssl.data import ImageFiles
from convit_ssl.data.images import take
from convit_ssl.data.listing.folders import Listing
from convit_ssl.engines.launch.command import run_experiment
from convit_ssl.errors import UserError
from convit_ssl.evaluation.label_free.views import ViewPixels, view_features
from convit_ssl.evaluation.probes.knn import METRICS, evaluate_knn
from convit_ssl.evaluation.probes.logistic_probe import logistic_probe
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.studies.page import surroundings
from convit_ssl.methods import self_supervised

# Its networks come from methods that compare views of an image, all of them alike in cost.
OTHERS = ("diet", "distill", "ibot", "lejepa")
METHODS = tuple(name for name in self_supervised() if name not in OTHERS)
RATES = (1e-4, 3e-2)  # per 256 images, drawn evenly on a log scale
SCALES = (None, 0.3, 0.6)  # least share of an image in a crop; None leaves the method's own
JITTERS = (None, 0.0)
SEED = 2026
UNTRAINED = 5  # networks that are also measured untrained
DIVISION = ("holdout", "group_by", "labels", "split", "split_seed")
TESTED = 600  # images at most, where there is a val or test folder
Cell = dict[str, Any]


def draw_settings(number: int, longest: int) -> dict[str, Any]:
    """The settings of a run: a function of its number alone, whatever the collection.

    Args:
        number: of the run, from 0.
        longest: epochs at most.
    """
    draw = np.random.default_rng([SEED, number])
    return {
        "method": METHODS[number % len(METHODS)],
        "epochs": round(math.exp(draw.uniform(0, math.log(longest)))),
        "lr": float(f"{math.exp(draw.uniform(*np.log(RATES))):.2e}"),
        "min_crop_scale": SCALES[draw.integers(len(SCALES))],
        "jitter": JITTERS[draw.integers(len(JITTERS))],
        "seed": number,
    }


def run(args: argparse.Namespace, out: Path) -> int:
    """Train and measure what is not measured yet; write the tables after each run.

    Raises:
        UserError: images without labels, or a folder with a study of other settings.
    """
    study = ScoreStudy(args, out)
    if args.dry_run:
        for number in range(args.runs):
            settings = draw_settings(number, args.epochs)
            words = study.words(settings, study.folder / "runs" / f"{number:03d}")
            print(shlex.join([sys.executable, "-m", "convit_ssl.cli.main", "train", *words]))
        return 0
    for number in range(args.runs):
        study.cell(f"{number:03d}", lambda n=number: study.trained(n))
    print((out / "results.md").read_text())
    print(f"written: {out}/results.json and results.md")
    return 0


class ScoreStudy:
    """The runs on one collection, in a folder that other collections share.

    Args:
        args: of the command.
        out: folder of the whole study.
    """

    def __init__(self, args: argparse.Namespace, out: Path) -> None:
        self.args, self.out = args, out
        own = args.data == "folder" and args.data_dir  # several of them share a study
        self.folder = out / (Path(os.path.realpath(args.data_dir)).name if own else str(args.data))
        self.images = StudyImages(args, self.folder / "features")
        if not args.dry_run:
            self._remember(self.folder / "study.json")

    def cell(self, name: str, measure: Any) -> None:
        """Measure, unless an earlier start did."""
        path = self.folder / "cells" / f"{name}.json"
        if not path.exists():
            started = time.perf_counter()
            try:
                found: Cell = measure()
            except UserError as error:
                found = {"failed": str(error)}
            found["seconds"] = round(time.perf_counter() - started, 1)
            write_json(found, path)
            shutil.rmtree(self.folder / "features", ignore_errors=True)
            shown = {key: found.get(key) for key in ("knn", "linear", "failed") if key in found}
            print(f"{self.args.data} {name}: {shown} {found['seconds']} s", flush=True)
            gc.collect()
        write(self.out, self.args.record)

    def trained(self, number: int) -> Cell:
        """Train one network, score and test it. The first run also gives the references."""
        settings = draw_settings(number, self.args.epochs)
        folder = self.folder / "runs" / f"{number:03d}"
        self._pretrain(settings, folder)
        options = self.images.probing(number, str(folder))
        source = probe_sources.open_source(options)
        if not (self.folder / "cells" / "pixels.json").exists():
            pixels = probe_sources.open_source(
                options, "pixels", source.reading if source.reading.native else None
            )
            write_json(
                self._measured(pixels, options, source), self.folder / "cells" / "pixels.json"
            )
        found = {**self._measured(source, options, source), "settings": settings}
        if number < UNTRAINED:
            model: Any = source.extractor.model
            untrained = probe_sources.untrained_like(model, options)
            found["untrained"] = self._measured(untrained, options, source)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def words(self, settings: Mapping[str, Any], folder: Path) -> list[str]:
        """The options of one run, as `train` takes them."""
        args = self.args
        words = [
            f"config=convit_{settings['method']}", f"data={args.data}",
            *([f"data_dir={args.data_dir}"] if args.data_dir else []),
            f"run={args.run}", f"trunk=convit_{args.size}", f"seed={settings['seed']}",
            f"run.root={folder.parent}", f"run.name={folder.name}", "run.tensorboard=false",
            "watch.every=0", f"optim.epochs={settings['epochs']}", f"optim.lr={settings['lr']}",
        ]  # fmt: skip
        if settings["min_crop_scale"] is not None:
            words.append(f"augmentation.min_crop_scale={settings['min_crop_scale']}")
        if settings["jitter"] is not None:
            words.append(f"augmentation.jitter={settings['jitter']}")
        subset = self.images.options.subset
        words += [f"data.subset='{subset}'"] if subset else []
        return [*words, *division_options.overrides(args), *args.set]

    def _pretrain(self, settings: Mapping[str, Any], folder: Path) -> None:
        """One run in this process: a start of its own would take longer than the training."""
        words = self.words(settings, folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        with open(self.folder / "runs.log", "a", encoding="utf-8") as log:
            log.write(" ".join(words) + "\n")
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                code = run_experiment(words)
        if code:
            raise UserError(f"training ended with exit code {code}; see {self.folder}/runs.log")

    def _measured(
        self, source: probe_sources.Source, options: argparse.Namespace, own: probe_sources.Source
    ) -> Cell:
        """Scores without labels, and accuracy with them, of one source."""
        fold = self._fold(source, options)
        of_pixels = "pixels" in fold.train.columns
        results = [
            evaluate_knn(fold.train, fold.val, ks=(5, 20), metric=metric)
            for metric in (METRICS if of_pixels else METRICS[:1])
        ]
        knn = max(results, key=lambda one: one.majority.value)
        linear = logistic_probe(fold.train, fold.val, 0, fold.groups)
        images = viewed_images(options, own, "train", _listing(self.images.learned(None)))
        rows = np.random.default_rng(0).permutation(len(images))[:VIEWED].tolist()
        network = ViewPixels() if of_pixels else Tokens(source.extractor, None, "cpu")
        views = view_features([network], images, rows)[0]
        plain = column_of(fold.train, None)[torch.from_numpy(fold.train.labelled())]
        row = score_row(source, plain[:IMAGES], views)
        truth = knn.truth
        return {
            "knn": knn.majority.value,
            "linear": float((linear.predicted == truth).mean()),
            "tested": len(truth),
            **row,
        }

    def _fold(
        self, source: probe_sources.Source, options: argparse.Namespace
    ) -> probe_division.Fold:
        """Features of train and of the test, or of some of its images."""
        if options.division is not None:
            return next(iter(probe_division.folds(source, options)))
        tested = _listing(self.images.tested(None))
        chosen = np.random.default_rng(0).permutation(len(tested.files))[:TESTED]
        tested = take(tested, np.sort(chosen).tolist())
        return probe_division.Fold(
            probe_sources.read_features(source, options, "train"),
            probe_sources.read_features(source, options, "test", tested),
        )

    def _remember(self, path: Path) -> None:
        """Refuse a folder with a study of other settings."""
        args = self.args
        asked = {
            name: getattr(args, name)
            for name in ("data", "subset", "size", "epochs", "set", "images_per_class", *DIVISION)
        }
        asked["images"] = self.images.learned(None).digest()
        refuse_other_settings(path, asked, self.folder, surroundings())


def _listing(images: ImageFiles) -> Listing:
    return Listing(images.root, list(images.files), images.targets, images.classes)
