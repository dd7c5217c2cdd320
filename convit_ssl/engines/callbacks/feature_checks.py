"""Look at the features while they are learnt: kNN accuracy, rank, spread, gates."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convit_ssl.adapters.views import plain_view
from convit_ssl.analysis.training import training_summary
from convit_ssl.data import FaultLog, ImageFiles, open_dataset
from convit_ssl.data.listing.division import DivisionSpec
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.engines.callbacks.feature_networks import SideBySide, Views
from convit_ssl.engines.callbacks.feature_reading import FeatureReader, LookError, together
from convit_ssl.engines.callbacks.feature_references import (
    BY,
    KNN,
    PIXELS,
    References,
    Sides,
    final_verdict,
    groups_of,
    measure_knn,
    replace_rows,
    with_transform,
)
from convit_ssl.engines.callbacks.feature_scores import score_of
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.evaluation.features.tokens import pixels_of
from convit_ssl.evaluation.probes.knn import KnnResult
from convit_ssl.evaluation.probes.splits import hold_out
from convit_ssl.evaluation.verdict import Verdict
from convit_ssl.methods import effective_rank, feature_std
from convit_ssl.models import ConViT
from convit_ssl.runs import RunFolder
from convit_ssl.schema_resolved import Resolved

RANK_IMAGES = 2000  # enough for the rank of a few hundred channels
# An image that is looked at takes an eighth of the time of one that is trained on: it has one view
# and no backward pass. One that is looked at for eight that are trained on is 1.6 % of the time.
LOOKED_AT = 1 / 8
LOOKS = 20  # at most
SAMPLED_FOR = 10  # looks that the sample of images is made for
BANK = (1000, 20_000)  # images of train at least and at most, where there are as many
LEAST_VAL = 500
VAL_SHARE = 1 / 4
NONLOCALITY_IMAGES = 8  # each costs one pass with dense attention maps


class Watch:
    """Looks at a trunk on a fixed part of train, and of val where there is one.

    How many images and how often follow from the images trained on, so that it takes under 2 %
    of the time, unless the options say otherwise.

    Args:
        options: the experiment's options.
        device: where features are computed.
        autocast: makes the precision of forward passes.
        trained_on: the images of training, where they may have been decoded already.
    """

    def __init__(
        self,
        options: Resolved,
        device: torch.device,
        autocast: Any,
        trained_on: ImageFiles | None = None,
    ) -> None:
        self.options = options
        self.trained_on = trained_on
        self.device = device
        self.autocast = autocast
        self._bank: ImageFiles | None = None
        self._val: ImageFiles | None = None
        self._bank_rows = self._val_rows = np.arange(0)
        self.reader = FeatureReader(options, device, autocast)
        self._pools: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None
        self.references = References(self)

    @cached_property
    def best_by(self) -> str:
        """The figure that the best checkpoint is chosen by."""
        return str(self.options.watch.best_by)

    @property
    def bank(self) -> ImageFiles:
        """The images of train, opened."""
        self._open()
        assert self._bank is not None
        return self._bank

    def due(self, epoch: int) -> bool:
        """Whether to look after this many epochs: the last one always, unless never."""
        if self.options.watch.every == 0:
            return False
        if epoch == self.options.optim.epochs:
            return True
        try:
            early = self.every > 1 and epoch == BY and self._compares
            return early or epoch % self.every == 0
        except LookError as error:
            _leave_out(error)
            return False

    @property
    def _compares(self) -> bool:
        """Whether features are compared with pixels, which is to be said early."""
        return self.options.watch.every is None and self._val is not None

    @cached_property
    def every(self) -> int:
        """Epochs between two looks."""
        given, epochs = self.options.watch.every, int(self.options.optim.epochs)
        if given is not None:
            return int(given)
        looks = min(LOOKS, epochs)
        if not self.options.derived.test_model:  # there it is at the heads alone
            self._open()
            if epochs > BY and self._compares:  # one of them early, see `due`
                looks = min(LOOKS - 1, epochs)
                allowed = self._images_allowed() / (len(self._bank_rows) + len(self._val_rows))
                return math.ceil(epochs / min(max(int(allowed) - 1, 2), looks))
            allowed = self._images_allowed() / (len(self._bank_rows) + len(self._val_rows))
            looks = min(max(int(allowed), 2), looks)
        return math.ceil(epochs / looks)

    def _images_allowed(self) -> float:
        """How many may be looked at in the whole run."""
        assert self._bank is not None
        return float(self.options.optim.epochs * len(self._bank) * LOOKED_AT)

    def figures(self, trunk: nn.Module) -> dict[str, Any]:
        """What is due: a whole look, or by default where labels are learned the heads alone.

        Labelled runs are tested on val anyway, and a frozen trunk has no news to tell. A look
        whose images cannot be read is left out: training needs none.
        """
        was_training = trunk.training
        try:
            if self.options.watch.every is not None or not self.options.derived.test_model:
                return self.look(trunk)
            frozen = not any(parameter.requires_grad for parameter in trunk.parameters())
            return {} if frozen else self.heads(trunk)
        except LookError as error:
            trunk.train(was_training)
            _leave_out(error)
            return {}

    def heads(self, trunk: nn.Module) -> dict[str, Any]:
        """Gates, places and non-locality of the heads, nothing of a CNN; see `training_summary`.

        Raises:
            LookError: in every process, where one cannot read its images.
        """
        if not isinstance(trunk, ConViT):
            return {}
        self._open()
        return training_summary(trunk, together(self._pictures))

    @torch.no_grad()
    def look(self, trunk: nn.Module) -> dict[str, Any]:
        """Figures for the log. Every process takes part; all get the same.

        Returns:
            ``rankme``, ``feature_std``, ``gates`` and what else `training_summary` gives, the
            score that the best checkpoint is chosen by, and ``knn`` in 0..1, and ``knn_name``,
            what it is, where train and val have labels.

        Raises:
            LookError: in every process, where one cannot read its images.
        """
        self._open()
        assert self._bank is not None
        was_training = trunk.training
        trunk.eval()
        sides, made = self._look_at(trunk)
        bank, rows = made["network"][0], sides.bank_rows
        # On the CPU whatever the device: a few thousand rows, and no wait for a kernel.
        sample = bank[:RANK_IMAGES]
        figures: dict[str, Any] = {
            "rankme": effective_rank(sample),
            "feature_std": feature_std(sample),
            **self.heads(trunk),
        }
        if self.best_by not in (KNN, *figures):
            score = together(lambda: score_of(self, trunk, sample, self.best_by))
            figures |= {} if score is None else {self.best_by: score}
        if self._val is not None:
            result = self.knn(*made["network"], sides)
            figures["knn"] = result.accuracy[result.headline].value
            whole = len(rows) == len(self._bank) and len(sides.val_rows) == len(self._val)
            extent = "all images" if whole else "sample"
            # Images that are held out for the test are not used before the verdict.
            figures["knn_name"] = result.name("within train" if self._pools else extent)
            figures["width"] = bank.shape[1]
            figures |= self.references.figures(result, bank, sides, made.get(PIXELS))
        trunk.train(was_training)
        return figures

    def _look_at(self, trunk: nn.Module) -> tuple[Sides, dict[str, tuple[Tensor, Tensor]]]:
        """Features of an evaluation, by network: of train, and of val where there is one.

        The first time with the raw pixels, so that each image is decoded once.
        """
        assert self._bank is not None
        if self._val is None:
            bank, rows = self.reader.features(trunk, self._bank, self._bank_rows)
            nothing = np.arange(0)
            return Sides(self._bank, rows, self._bank, nothing), {"network": (bank, bank[:0])}
        sides = Sides(self._bank, self._bank_rows, self._val, self._val_rows)
        return self.compare({"network": trunk}, sides, pixels=not self.references.measured)

    def compare(
        self, networks: Mapping[str, nn.Module], sides: Sides, pixels: bool
    ) -> tuple[Sides, dict[str, tuple[Tensor, Tensor]]]:
        """Features of several networks, and the raw pixels, from images that are read once.

        A collective call.

        Args:
            networks: by name.
            sides: the images.
            pixels: whether raw pixels are among them, by the name `PIXELS`.

        Returns:
            The images that could be read, and by name the features (N, D) of both sides.
        """
        views: list[Any] = [sides.bank.transform]
        views += [pixels_of(sides.bank)] if pixels else []
        inputs: dict[str, int] = dict.fromkeys(networks, 0) | ({PIXELS: 1} if pixels else {})
        several = SideBySide([*networks.values(), *([nn.Flatten(1)] if pixels else [])],
                             list(inputs.values()))  # fmt: skip
        found = []
        for images, rows in ((sides.bank, sides.bank_rows), (sides.val, sides.val_rows)):
            found.append(self.reader.features(several, with_transform(images, Views(views)), rows))
        (bank, bank_rows), (val, val_rows) = found
        widths = next(each for each in processes.gather(several.widths) if each)
        parts = zip(inputs, bank.split(widths, 1), val.split(widths, 1), strict=True)
        return replace_rows(sides, bank_rows, val_rows), {
            name: (one.contiguous(), other.contiguous()) for name, one, other in parts
        }

    def knn(self, bank: Tensor, val: Tensor, sides: Sides, metric: str = "cosine") -> KnnResult:
        """KNN of some features; a collective call."""
        k = int(self.options.watch.knn_k)
        return together(lambda: measure_knn(bank, val, sides, k, self.device, metric))

    def verdict(
        self, trunk: nn.Module, figures: dict[str, Any], classifier: nn.Module | None = None
    ) -> Verdict | None:
        """The trained network against its references; None if there are no labels.

        A collective call. A verdict whose images cannot be read is left out.

        Args:
            trunk: judged by kNN.
            figures: of the last evaluation.
            classifier: a whole network that learned the labels, which is judged by what it says.
        """
        was_training = trunk.training
        trunk.eval()
        try:
            return final_verdict(self, trunk, figures, self.references, classifier)
        except LookError as error:
            _leave_out(error)
            return None
        finally:
            trunk.train(was_training)

    def final_sides(self, learned: tuple[int, int], tested: tuple[int, int]) -> Sides | None:
        """Images for the verdict: of train and of the test; None if there are no labels.

        Args:
            learned: images of train, at least and at most where there are as many.
            tested: the same of the test.
        """
        self._open()
        if self._bank is None or self._val is None:
            return None
        bank, val, pools = self._bank, self._val, self._pools
        if DivisionSpec.of(self.options.data).divides:
            val, pools = together(lambda: self._opened("val")), None
        else:
            with contextlib.suppress(LookError):  # a test folder, where there is one
                val, pools = together(lambda: self._opened("test")), None
        allowed = self._images_allowed()
        counts = [
            min(max(int(allowed * share), least), most)
            for share, (least, most) in ((0.6, learned), (0.3, tested))
        ]
        rows, val_rows = pools or (np.arange(len(bank)), np.arange(len(val)))
        return Sides(bank, _some(rows, counts[0]), val, _some(val_rows, counts[1]))

    def _pictures(self) -> Tensor:
        """The images that non-locality is measured on, the same every time."""
        assert self._bank is not None
        chosen = [self._bank[int(row)][0] for row in self._bank_rows[:NONLOCALITY_IMAGES]]
        return torch.stack(chosen).to(self.device)

    def _open(self) -> None:
        """Open train, and val where there is one, in every process or in none."""
        if self._bank is not None:
            return
        bank = together(lambda: self._opened("train"))
        if self.trained_on is not None:
            bank.share_decoded(self.trained_on)
        val: ImageFiles | None = None
        if bank.labelled and not DivisionSpec.of(self.options.data).divides:
            with contextlib.suppress(LookError):  # pretraining needs no val
                val = together(lambda: self._opened("val"))
        if bank.labelled and val is None:
            self._pools = self._held_out(bank)
            val = bank if self._pools is not None else None
        self._bank, self._val = bank, val
        self._choose_rows()

    def _held_out(
        self, bank: ImageFiles
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        """Rows of train that vote and that are classified, where no test part may be looked at."""
        targets = np.asarray(bank.targets)
        if len(np.unique(targets[targets >= 0])) < 2:
            return None
        groups = groups_of(self.options, bank, np.arange(len(bank)))
        try:
            return hold_out(targets, VAL_SHARE, 0, groups)
        except UserError:  # one image a class
            return None

    def _opened(self, split: str) -> ImageFiles:
        """A split without augmentation; its bad images count with those met in training."""
        data = self.options.data
        return open_dataset(
            data.name,
            self.options.data_dir,
            split,
            plain_view(self.options),
            subset=data.subset,
            max_corrupt=data.max_corrupt,
            replace=False,
            reading=Reading.of(data),
            fault_log=FaultLog(str(RunFolder.of(self.options.run).unreadable)),
            division=DivisionSpec.of(data, not self.options.derived.test_model),
        )

    def _choose_rows(self) -> None:
        assert self._bank is not None
        voting, asked = np.arange(len(self._bank)), np.arange(len(self._val or ()))
        if self._pools is not None:
            voting, asked = self._pools
        bank, val = self._sizes(len(asked))
        self._bank_rows, self._val_rows = _some(voting, bank), _some(asked, val)

    def _sizes(self, val_images: int) -> tuple[int, int]:
        """Images of train and of val in an evaluation, at most."""
        watch, epochs = self.options.watch, self.options.optim.epochs
        if watch.knn_images is not None:
            return int(watch.knn_images), val_images
        looks = epochs / watch.every if watch.every else min(SAMPLED_FOR, epochs)
        images = self._images_allowed() / max(looks, 1)
        least, most = BANK
        bank = min(max(int(images * (1 - VAL_SHARE)), least), most)
        return bank, max(int(images * VAL_SHARE), LEAST_VAL)


def _leave_out(error: LookError) -> None:
    logging.warning("skipping this evaluation of the features, training continues: %s", error)


def _some(rows: np.ndarray[Any, Any], wanted: int) -> np.ndarray[Any, Any]:
    """Some of the rows, in order, the same every time."""
    chosen = np.random.default_rng(0).choice(len(rows), min(wanted, len(rows)), replace=False)
    sample: np.ndarray[Any, Any] = rows[np.sort(chosen)]
    return sample
