"""``convit-ssl study baselines``: did pretraining help on these images? One table, one verdict."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from convit_ssl.cli.options import weights as weights_options
from convit_ssl.cli.probe import division as probe_division
from convit_ssl.cli.probe import references as probe_references
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.study.baselines_images import StudyImages
from convit_ssl.cli.study.baselines_rows import (
    FINE_TUNED,
    LABELS,
    PIXELS,
    RESNET,
    UNTRAINED,
    beside,
    trunks_of,
)
from convit_ssl.cli.study.baselines_runs import Pretrained, commands, pretrained, race_of
from convit_ssl.cli.study.baselines_write import write
from convit_ssl.cli.study.plan import refuse_other_settings
from convit_ssl.data import evaluation_transform
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.tokens import TokenFeatures
from convit_ssl.evaluation.probes.knn import METRICS, evaluate_knn
from convit_ssl.evaluation.probes.logistic_probe import logistic_probe
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.studies import design as study
from convit_ssl.evaluation.studies import label_training
from convit_ssl.evaluation.studies.baselines import CLASSIFIER, KNN, LINEAR
from convit_ssl.methods.scale_tables import SMALLEST_LABELLED
from convit_ssl.models import ConViT
from convit_ssl.reading import read_record
from convit_ssl.starting import working_on

# Fine-tuning's share of the pretraining's processor time. Labels alone get both together.
FINE_TUNING_SHARE = 0.5
TESTED = "tested.json"
# Options that every start of a study shares.
COMPARED = (
    "data data_dir methods size epochs minutes subset set images_per_class holdout group_by labels "
    "split split_seed"
)
Cell = dict[str, Any]


def run(args: argparse.Namespace, out: Path) -> int:
    """Measure what is not measured yet, and write the table after each cell.

    With ``--dry-run``, the commands of the runs are printed, and nothing is written.

    Raises:
        UserError: nothing to test on, or an unknown network, before anything is trained.
    """
    baselines = Baselines(args, out)
    if args.dry_run:
        for line in commands(args, out, baselines.trunks):
            print(line)
        return 0
    baselines.run()
    print((out / "results.md").read_text())
    print(f"written: {out}/results.json and results.md")
    return 0


class Baselines:
    """The cells of one study: rows times seeds, each kept when it is done.

    Args:
        args: of the command.
        out: folder of the study.
    """

    def __init__(self, args: argparse.Namespace, out: Path) -> None:
        self.args, self.out = args, out
        self.trunks = trunks_of(args)
        self.images = StudyImages(args, out / "features")
        study.pretraining(self.trunks, args.methods, study.Settings(args.data))  # known methods
        self.references = self._open_references()
        self.missing: dict[str, str] = {}
        self.cells: list[Cell] = []
        self.part = self.images.part
        if not args.dry_run:
            self._remember(out / "study.json")

    def run(self) -> None:
        """All cells, seed by seed, so that a study that is stopped early is a smaller whole one."""
        self._references_once()
        for seed, trunk in itertools.product(range(self.args.seeds), self.trunks):
            self._trunk(trunk, seed)
        if self.args.no_labels:
            return
        method = self.best_method()
        for seed in range(self.args.seeds):
            for trunk in self.trunks:
                name = beside(FINE_TUNED.format(method), trunk)
                self._cell(name, seed, partial(self._fine_tuned, trunk, method, seed))

    def _trunk(self, trunk: str, seed: int) -> None:
        """One network: pretrained by each method, untrained, and with labels alone."""
        args = self.args
        runs = {}
        for method in args.methods:
            with working_on(self._doing(f"pretraining of {beside(method, trunk)}", seed)):
                runs[method] = pretrained(args, self.out, trunk, method, seed)
            self._cell(beside(method, trunk), seed, partial(self._frozen, runs[method], seed))
        model = self._model(str(runs[args.methods[0]].folder))
        untrained = probe_sources.untrained_like(model, self.images.probing(seed))
        self._cell(beside(UNTRAINED, trunk), seed, lambda: self._features(untrained, seed, 0.0))
        if args.no_labels:
            return
        spent = [self._spent(method, seed) for method in args.methods]
        budget = (1 + FINE_TUNING_SHARE) * sum(spent) / len(spent)
        classes, size = len(self.images.learned(None).classes), model.config.img_size
        makers: dict[str, Callable[[], nn.Module]] = {
            beside(LABELS, trunk): lambda: _untrained(model, classes, seed)
        }
        if trunk == self.trunks[0]:
            makers[RESNET] = lambda: label_training.resnet18(classes, seed)
        for row, make in makers.items():
            self._cell(row, seed, partial(self._from_scratch, make, seed, budget, size))

    def _frozen(self, run: Pretrained, seed: int) -> Cell:
        """The features of a pretrained network."""
        source = probe_sources.open_source(self.images.probing(seed), str(run.folder))
        return {**self._features(source, seed, run.core_seconds), **race_of(run.folder)}

    def _references_once(self) -> None:
        """The rows that no seed changes: raw pixels and frozen networks."""
        pixels = probe_sources.open_source(self.images.probing(0), "pixels")
        self._cell(PIXELS, None, lambda: self._features(pixels, 0, 0.0))
        self._reference_cells()

    def _open_references(self) -> list[probe_sources.Source | probe_references.Missing]:
        if not self.args.reference:
            return [probe_references.not_asked()]
        said = weights_options.settings_of(self.args)
        size = said.pop("img_size", None)
        known = {**vars(self.images.options), **said, "reference_size": size}
        options = argparse.Namespace(**known)
        return [
            probe_references.frozen_source(name, options, described=True)
            for name in self.args.reference
        ]

    def _reference_cells(self) -> None:
        for source in self.references:
            if isinstance(source, probe_references.Missing):
                self.missing[source.name] = source.reason
            else:
                self._cell(source.name, None, partial(self._features, source, 0, 0.0))

    def _cell(self, row: str, seed: int | None, measure: Callable[[], Cell]) -> None:
        """Measure a cell, unless an earlier start did; seed None for what no seed changes."""
        slug = "".join(c if c.isalnum() else "_" for c in row.lower())
        which = "" if seed is None else f"-seed{seed}"
        path = self.out / "cells" / f"{slug}{which}.json"
        if path.exists():
            cell: Cell = read_record(path, "row", "probes")
        else:
            started = time.perf_counter()
            with working_on(self._doing(row, seed)):
                cell = {"row": row, "seed": seed, **measure()}
            cell["load_average"] = round(os.getloadavg()[0], 1)
            cell["wall_seconds"] = round(time.perf_counter() - started, 1)
            write_json(cell, path)
            shown = {
                probe: round(100 * found["accuracy"], 1) for probe, found in cell["probes"].items()
            }
            print(f"{row}{which and f', seed {seed}'}: {shown}", flush=True)
        self.cells.append(cell)
        write(self)

    def _doing(self, row: str, seed: int | None) -> str:
        """For the lines of progress."""
        which = "" if seed is None else f", seed {seed}"
        return f"{row}{which}, after {len(self.cells)} cells"

    def _features(self, source: probe_sources.Source, seed: int, core_seconds: float) -> Cell:
        """KNN and the linear probe of a source."""
        fold = next(iter(probe_division.folds(source, self.images.probing(seed))))
        pixels = "pixels" in fold.train.columns
        results = [
            evaluate_knn(fold.train, fold.val, metric=metric)
            for metric in (METRICS if pixels else METRICS[:1])
        ]
        knn = max(results, key=lambda one: one.accuracy[one.headline].value)
        linear = logistic_probe(fold.train, fold.val, seed, fold.groups)
        paths = [str(fold.val.paths[row]) for row in fold.val.labelled()]
        groups = fold.test_groups
        write_json(
            {
                "truth": knn.truth.tolist(),
                "classes": list(fold.train.classes),
                "groups": None if groups is None else groups.tolist(),
                "labels": len(fold.train.labelled()),
            },
            self.out / TESTED,
        )
        return {
            "core_seconds": core_seconds,
            "images": len(paths),
            "probes": {
                KNN: _probe(knn.predictions, knn.truth, None),
                LINEAR: {
                    **_probe(linear.predicted, knn.truth, linear.margins),
                    "held_out": linear.held_out,
                },
            },
        }

    def _from_scratch(
        self, make: Callable[[], nn.Module], seed: int, budget: float, size: Any
    ) -> Cell:
        return self._learned(make(), seed, budget, size, label_training.FROM_SCRATCH)

    def _learned(
        self, model: nn.Module, seed: int, budget: float, size: Any,
        settings: label_training.LabelSettings, before: float = 0.0,
    ) -> Cell:  # fmt: skip
        """Train with labels, and measure the classifier and the features under it."""
        images = self.images.learned(self.images.augmentation(size))
        if len(images) < SMALLEST_LABELLED:
            raise UserError(f"{len(images)} labelled images are too few to learn from")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            spent = label_training.train_with_labels(model, images, budget, settings, seed)
        transform = evaluation_transform(size)
        source = self._as_source(model, transform)
        cell = self._features(source, seed, before + spent.core_seconds)
        cell |= {"steps": spent.steps, "epochs": round(spent.epochs, 2)}
        logits, targets = label_training.classify(model, self.images.tested(transform))
        truth = np.asarray(self.tested_images()["truth"])
        if not np.array_equal(targets, truth):
            raise UserError("the test images changed while the study ran; give it another --out")
        margins = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else None
        cell["probes"][CLASSIFIER] = _probe(logits.argmax(axis=1), truth, margins)
        return cell

    def _fine_tuned(self, trunk: str, method: str, seed: int) -> Cell:
        done = pretrained(self.args, self.out, trunk, method, seed)
        model = self._model(str(done.folder))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.reset_classifier(len(self.images.learned(None).classes))
        budget = FINE_TUNING_SHARE * self._spent(method, seed)
        size, settings = model.config.img_size, label_training.FINE_TUNING
        return self._learned(model, seed, budget, size, settings, done.core_seconds)

    def _spent(self, method: str, seed: int) -> float:
        """Processor seconds of ConViT's pretraining, by which both networks get their time."""
        return pretrained(self.args, self.out, self.trunks[0], method, seed).core_seconds

    def best_method(self) -> str:
        """The method with the best linear probe on held-out images of train, so far."""
        scores: dict[str, float] = {}
        for method in self.args.methods:
            own = [cell for cell in self.cells if cell["row"] == method]
            held_out = [cell["probes"][LINEAR]["held_out"] for cell in own]
            scores[method] = sum(held_out) / max(1, len(held_out))
        return max(scores, key=lambda method: scores[method])

    def _model(self, folder: str) -> ConViT:
        source = probe_sources.open_source(self.images.probing(0), folder)
        assert isinstance(source.extractor, TokenFeatures)
        assert isinstance(source.extractor.model, ConViT)
        return source.extractor.model

    def _as_source(self, model: nn.Module, transform: Any) -> probe_sources.Source:
        known = isinstance(model, ConViT)
        extractor = TokenFeatures(model) if known else label_training.ResNetFeatures(model)
        return probe_sources.Source(
            "labels", extractor.eval(), transform, {}, self.images.reading()
        )

    def tested_images(self) -> dict[str, Any]:
        """Classes and groups of the images that every cell is measured on."""
        return read_record(self.out / TESTED)

    def _remember(self, path: Path) -> None:
        """Refuse a folder that holds a study of other settings."""
        names = COMPARED.split()
        asked = {name: getattr(self.args, name) for name in names}
        asked["images"] = self.images.learned(None).digest()
        refuse_other_settings(path, asked, self.out)


def _untrained(model: ConViT, classes: int, seed: int) -> ConViT:
    """The same network with a classifier, at random init."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConViT(dataclasses.replace(model.config, num_classes=classes))


def _probe(predicted: Any, truth: Any, margins: Any) -> Cell:
    found: Cell = {
        "accuracy": float((predicted == truth).mean()),
        "predicted": predicted.tolist(),
    }
    if margins is not None:
        found["scores"] = [round(float(value), 5) for value in margins]
    return found
