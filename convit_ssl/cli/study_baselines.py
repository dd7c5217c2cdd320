"""``convit-ssl study baselines``: did pretraining help on these images? One table, one verdict."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from convit_ssl.cli import knn_command, probe_division, probe_references, probe_sources
from convit_ssl.cli.study_baselines_runs import pretrained
from convit_ssl.cli.study_baselines_write import write
from convit_ssl.cli.study_plan import whole
from convit_ssl.data import ImageFiles, evaluation_transform, open_dataset
from convit_ssl.data.augment import AugmentConfig, CropConfig, build_augmentation
from convit_ssl.engines.config import compose_experiment
from convit_ssl.errors import UserError
from convit_ssl.evaluation import label_training
from convit_ssl.evaluation.baselines_table import CLASSIFIER, KNN, LINEAR
from convit_ssl.evaluation.knn import METRICS, evaluate_knn
from convit_ssl.evaluation.logistic_probe import logistic_probe
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.tokens import TokenFeatures
from convit_ssl.methods.scale_tables import SMALLEST_LABELLED
from convit_ssl.models import ConViT

PIXELS, UNTRAINED = "raw pixels", "untrained"
LABELS, RESNET = "labels alone, ConViT", "labels alone, ResNet-18"
FINE_TUNED = "pretrained ({}), fine-tuned"
# Fine-tuning's share of the pretraining's processor time. Labels alone get both together.
FINE_TUNING_SHARE = 0.5
TESTED = "tested.json"
LEAST_SCALE = 0.25  # of an image's area in a crop that labels are learned from
Cell = dict[str, Any]


def run(args: argparse.Namespace, out: Path) -> int:
    """Measure what is not measured yet, and write the table after each cell.

    Raises:
        UserError: nothing to test on, or an unknown network, before anything is trained.
    """
    study = Baselines(args, out)
    study.run()
    print("\n".join((out / "results.md").read_text().splitlines()))
    print(f"written: {out}/results.json and results.md")
    return 0


class Baselines:
    """The cells of one study: rows times seeds, each kept when it is done.

    Args:
        args: of the command.
        out: folder of the study.
    """

    def __init__(self, args: argparse.Namespace, out: Path) -> None:
        if args.folds:
            raise UserError("baselines tests on one part of the images; give --holdout, no --folds")
        self.args, self.out = args, out
        self.trunk = f"convit_{args.size}"
        self.probing = self._probing(0)
        self.spec = self.probing.spec
        self.missing: dict[str, str] = {}
        self.cells: list[Cell] = []
        self.part = "the held-out part" if self.probing.division is not None else self.probing.on
        self._remember(out / "study.json")

    def run(self) -> None:
        """All cells, seed by seed, so that a study that is stopped early is a smaller whole one."""
        for seed in range(self.args.seeds):
            self._seed(seed)
        method = self._best_method()
        for seed in range(self.args.seeds):
            name = FINE_TUNED.format(method)
            self._cell(name, seed, lambda s=seed: self._fine_tuned(method, s))  # type: ignore[misc]

    def _seed(self, seed: int) -> None:
        args = self.args
        runs = {}
        for method in args.methods:
            runs[method] = pretrained(args, self.out, self.trunk, method, seed)
            self._cell(method, seed, lambda m=method: self._features(  # type: ignore[misc]
                probe_sources.open_source(self._probing(seed), str(runs[m].folder)),
                seed, runs[m].core_seconds))  # fmt: skip
        first = str(next(iter(runs.values())).folder)
        if seed == 0:
            pixels = probe_sources.open_source(self._probing(0, first), "pixels")
            self._cell(PIXELS, None, lambda: self._features(pixels, 0, 0.0))
            self._references(first)
        model = self._model(first)
        untrained = probe_sources.untrained_like(model, self._probing(seed))
        self._cell(UNTRAINED, seed, lambda: self._features(untrained, seed, 0.0))
        spent = sum(one.core_seconds for one in runs.values()) / len(runs)
        budget = (1 + FINE_TUNING_SHARE) * spent
        classes, size = len(self._images(None).classes), model.config.img_size
        alone = label_training.FROM_SCRATCH
        for row, make in ((LABELS, lambda: _untrained(model, classes, seed)),
                          (RESNET, lambda: label_training.resnet18(classes, seed))):  # fmt: skip
            self._cell(
                row,
                seed,
                lambda make=make: self._learned(make(), seed, budget, size, alone),  # type: ignore[misc]
            )

    def _references(self, checkpoint: str) -> None:
        for name in self.args.reference or [""]:
            source = (
                probe_references.frozen_source(name, self._probing(0, checkpoint))
                if name
                else probe_references.not_asked()
            )
            if isinstance(source, probe_references.Missing):
                self.missing[source.name] = source.reason
            else:
                self._cell(source.name, None, lambda s=source: self._features(s, 0, 0.0))  # type: ignore[misc]

    def _cell(self, row: str, seed: int | None, measure: Callable[[], Cell]) -> None:
        """Measure a cell, unless an earlier start did; seed None for what no seed changes."""
        slug = "".join(c if c.isalnum() else "_" for c in row.lower())
        which = "" if seed is None else f"-seed{seed}"
        path = self.out / "cells" / f"{slug}{which}.json"
        if path.exists():
            cell: Cell = json.loads(path.read_text())
        else:
            started = time.perf_counter()
            cell = {"row": row, "seed": seed, **measure()}
            cell["wall_seconds"] = round(time.perf_counter() - started, 1)
            write_json(cell, path)
            shown = {
                probe: round(100 * found["accuracy"], 1) for probe, found in cell["probes"].items()
            }
            print(f"{row}{which and f', seed {seed}'}: {shown}", flush=True)
        self.cells.append(cell)
        write(self)

    def _features(self, source: probe_sources.Source, seed: int, core_seconds: float) -> Cell:
        """KNN and the linear probe of a source."""
        fold = next(iter(probe_division.folds(source, self._probing(seed))))
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

    def _learned(
        self, model: nn.Module, seed: int, budget: float, size: Any,
        settings: label_training.LabelSettings, before: float = 0.0,
    ) -> Cell:  # fmt: skip
        """Train with labels, and measure the classifier and the features under it."""
        images = self._images(self._augmentation(size))
        if len(images) < SMALLEST_LABELLED:
            raise UserError(f"{len(images)} labelled images are too few to learn from")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            spent = label_training.train_with_labels(model, images, budget, settings, seed)
        transform = evaluation_transform(size)
        source = self._as_source(model, transform)
        cell = self._features(source, seed, before + spent.core_seconds)
        cell |= {"steps": spent.steps, "epochs": round(spent.epochs, 2)}
        logits = label_training.classify(model, self._tested(transform))
        truth = np.asarray(self.tested_images()["truth"])
        margins = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else None
        cell["probes"][CLASSIFIER] = _probe(logits.argmax(axis=1), truth, margins)
        return cell

    def _fine_tuned(self, method: str, seed: int) -> Cell:
        done = pretrained(self.args, self.out, self.trunk, method, seed)
        model = self._model(str(done.folder))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.reset_classifier(len(self._images(None).classes))
        budget = FINE_TUNING_SHARE * done.core_seconds
        size, settings = model.config.img_size, label_training.FINE_TUNING
        return self._learned(model, seed, budget, size, settings, done.core_seconds)

    def _best_method(self) -> str:
        """The method with the best linear probe on held-out images of train."""
        scores = {
            method: sum(
                cell["probes"][LINEAR]["held_out"] for cell in self.cells if cell["row"] == method
            )
            for method in self.args.methods
        }
        return max(scores, key=lambda method: scores[method])

    def _model(self, folder: str) -> ConViT:
        source = probe_sources.open_source(self._probing(0), folder)
        assert isinstance(source.extractor, TokenFeatures)
        assert isinstance(source.extractor.model, ConViT)
        return source.extractor.model

    def _as_source(self, model: nn.Module, transform: Any) -> probe_sources.Source:
        known = isinstance(model, ConViT)
        extractor = TokenFeatures(model) if known else label_training.ResNetFeatures(model)
        return probe_sources.Source("labels", extractor.eval(), transform, {}, self._reading())

    def _images(self, transform: Any) -> ImageFiles:
        """Those that are learned from."""
        args = self.args
        return open_dataset(
            args.data, args.data_dir, "train", transform, self.probing.subset,
            division=self.spec or None, reading=self._reading(),
        )  # fmt: skip

    def _tested(self, transform: Any) -> ImageFiles:
        args = self.args
        part = "val" if self.probing.division is not None else self.probing.on
        return open_dataset(
            args.data, args.data_dir, part, transform, self.probing.subset,
            division=self.spec or None, reading=self._reading(), max_corrupt=1.0, replace=False,
        )  # fmt: skip

    def _reading(self) -> Any:
        if not hasattr(self, "_known_reading"):
            source = probe_sources.Source("", nn.Identity(), None, {})
            self._known_reading = probe_sources.open_images(self.probing, "train", source).reading
        return self._known_reading

    def _augmentation(self, size: Any) -> Any:
        """Crops, and mirror images where the collection's settings allow them."""
        composed = compose_experiment(["config=convit_supervised", f"data={self.args.data}"])
        asked = composed.tree.augmentation
        least = max(LEAST_SCALE, asked.min_crop_scale or 0.0)
        flip = 0.5 if asked.horizontal_flip is None else asked.horizontal_flip
        crop = CropConfig(size, scale=(least, 1.0), horizontal_flip=flip)
        return build_augmentation(AugmentConfig((crop,)), "fast")

    def tested_images(self) -> dict[str, Any]:
        """Classes and groups of the images that every cell is measured on."""
        found: dict[str, Any] = json.loads((self.out / TESTED).read_text())
        return found

    def _probing(self, seed: int, checkpoint: str = "pixels") -> argparse.Namespace:
        """The options of a probe on this study's images."""
        args = self.args
        parser = argparse.ArgumentParser()
        knn_command.add_arguments(parser)
        words = ["--data", args.data, "--seed", str(seed), "--cache", str(self.out / "features")]
        words += ["--references"]
        words += ["--data-dir", args.data_dir] if args.data_dir else []
        subset = args.subset or whole(args)
        words += ["--subset", subset] if subset else []
        asked = parser.parse_args([checkpoint, *words])
        for name in ("holdout", "group_by", "labels", "split", "split_seed"):
            setattr(asked, name, getattr(args, name))
        asked.spec = probe_division.division_options.spec_of(asked)
        probe_division.prepare(asked)
        return asked

    def _remember(self, path: Path) -> None:
        """Refuse a folder that holds a study of other settings."""
        names = ("data", "data_dir", "methods", "size", "epochs", "minutes", "subset", "set")
        names += ("images_per_class", "holdout", "group_by", "labels", "split", "split_seed")
        asked = {name: getattr(self.args, name) for name in names}
        asked["images"] = self._images(None).digest()
        if path.exists():
            before = json.loads(path.read_text())
            changed = [name for name in asked if before.get(name) != asked[name]]
            if changed:
                raise UserError(
                    f"{self.out} holds a study with other {', '.join(changed)}; "
                    "give this one another --out"
                )
        write_json(asked, path)


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
