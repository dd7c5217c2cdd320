"""What the features are compared with: raw pixels while training, and a verdict at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from convit_ssl.data import ImageFiles
from convit_ssl.data.listing.division import DivisionSpec
from convit_ssl.data.opening import open_division
from convit_ssl.evaluation.advice import Seen, falls_while_loss_falls, next_steps
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.features.tokens import pixels_of
from convit_ssl.evaluation.paired import Predictions, compare
from convit_ssl.evaluation.probes.knn import METRICS, KnnResult, evaluate_knn
from convit_ssl.evaluation.verdict import Verdict, judge
from convit_ssl.models import ConViT
from convit_ssl.models.trunks import OtherTrunk, build_trunk
from convit_ssl.schema_resolved import Resolved

if TYPE_CHECKING:
    from convit_ssl.engines.callbacks.feature_checks import Watch

Rows = np.ndarray[Any, Any]
KNN = "knn"
PIXELS, UNTRAINED = "raw pixels", "untrained network"
# Epochs after which features that are no better than pixels are said to be so.
FIRST, BY = 3, 5
# Images of the verdict: train and test, at least and at most; between, a share of those trained on.
LEARNED, TESTED = (2000, 50_000), (1000, 20_000)
RIM = 0.18  # of the side, that counts as background
NEIGHBOURS = 5


@dataclass(frozen=True)
class Sides:
    """Images to vote and images to classify, with the rows of each that take part."""

    bank: ImageFiles
    bank_rows: Rows
    val: ImageFiles
    val_rows: Rows


class References:
    """Raw pixels on the images of a watch, measured once.

    Args:
        watch: whose images and device are used.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._pixels: KnnResult | None = None
        self._thumbnails: Tensor | None = None
        self.told = False
        self.knn: list[tuple[float, float]] = []
        self.loss: list[float] = []

    @property
    def measured(self) -> bool:
        """Whether the pixels have been measured."""
        return self._pixels is not None

    def figures(
        self,
        result: KnnResult,
        bank: Tensor,
        sides: Sides,
        flat: tuple[Tensor, Tensor] | None = None,
    ) -> dict[str, Any]:
        """Pixels' accuracy on the same images, and how the features compare with it.

        Args:
            result: of the features.
            bank: (N, D) features of train.
            sides: the images.
            flat: raw pixels of both sides, needed the first time.
        """
        if self._pixels is None:
            assert flat is not None
            self._pixels = self.by_pixels(flat, sides)
            self._thumbnails = _thumbnails(flat[0], sides)
        pixels = self._pixels
        figures: dict[str, Any] = {"knn_pixels": pixels.accuracy[pixels.headline].value}
        if len(pixels.truth) == len(result.truth):
            predictions = Predictions(
                result.truth,
                {"features": result.predictions == result.truth,
                 PIXELS: pixels.predictions == pixels.truth},
                groups_of(self.watch.options, sides.val, labelled_rows(sides.val, sides.val_rows)),
            )  # fmt: skip
            balanced = predictions.uneven
            difference = compare(predictions, "features", PIXELS, balanced)
            figures["over_pixels_metric"] = "balanced accuracy" if balanced else "accuracy"
            figures["over_pixels_of"] = [
                predictions.score(name, balanced) for name in ("features", PIXELS)
            ]
            figures["over_pixels"] = difference.value
            figures["over_pixels_95"] = [difference.low, difference.high]
        if self._thumbnails is not None and len(self._thumbnails) == len(bank):
            figures["background"] = background_share(bank, self._thumbnails)
        return figures

    def messages(self, epoch: int, figures: dict[str, Any]) -> list[str]:
        """What a person should know now, each once."""
        found = []
        if "knn" in figures:
            self.knn.append((epoch, figures["knn"]))
            self.loss.append(float(figures["loss"]))
        last = epoch == self.watch.options.optim.epochs
        if "over_pixels_95" in figures and epoch >= FIRST and not self.told and not last:
            low, high = figures["over_pixels_95"]
            if low <= 0:
                self.told = True
                found.append(_no_better(epoch, figures, low, high))
        if falls_while_loss_falls(self.knn, self.loss):
            best, value = max(self.knn, key=lambda pair: pair[1])
            kept = " (checkpoints/best.torch)" if self.watch.best_by == KNN else ""
            found.append(
                f"kNN falls while the loss falls: {100 * figures['knn']:.1f} %, and "
                f"{100 * value:.1f} % after epoch {best:g}{kept}. The network "
                f"lowers the loss by something unrelated to your classes"
            )
        return found

    def by_pixels(self, flat: tuple[Tensor, Tensor], sides: Sides) -> KnnResult:
        """KNN of raw pixels by the metric that suits them better."""
        results = [self.watch.knn(*flat, sides, metric) for metric in METRICS]
        return max(results, key=lambda found: found.accuracy[found.headline].value)


def _thumbnails(flat: Tensor, sides: Sides) -> Tensor | None:
    """Raw pixels as pictures (N, C, side, side); None where they are too small to tell a rim."""
    transform = pixels_of(sides.bank)
    channels = transform.channels or (1 if transform.grey else 3)
    shape = (len(flat), channels, transform.side, transform.side)
    return flat.reshape(shape) if transform.side >= 8 else None


def _no_better(epoch: int, figures: dict[str, Any], low: float, high: float) -> str:
    features, pixels = figures["over_pixels_of"]
    said = "not better than raw pixels yet"
    if features > pixels:
        said = "not shown to be better than raw pixels yet"
    if pixels == 1:
        said = "compared with raw pixels that are always right, which cannot show a gain"
    text = (
        f"epoch {epoch}: features are {said}: kNN "
        f"{figures['over_pixels_metric']} {100 * features:.1f} % and {100 * pixels:.1f} %, "
        "difference "
        f"{100 * figures['over_pixels']:+.1f} points (95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f})"
    )
    if figures.get("background", 0.0) > 0.05:
        text += (
            "; nearest neighbours look alike at the border of the image rather than in the "
            "centre, so the background may dominate"
        )
    return text


def replace_rows(sides: Sides, bank_rows: Rows, val_rows: Rows) -> Sides:
    """The same images with the rows that could be read."""
    return replace(sides, bank_rows=bank_rows, val_rows=val_rows)


def labelled_rows(images: ImageFiles, rows: Rows) -> Rows:
    """Those of some rows that have a label."""
    kept: Rows = rows[np.asarray(images.targets)[rows] >= 0]
    return kept


def groups_of(options: Resolved, images: ImageFiles, rows: Rows) -> Rows | None:
    """The group of each of some images; None where nothing was asked to stay together."""
    spec = DivisionSpec.of(options.data, not options.derived.test_model)
    if not spec.divides:
        return None
    division = open_division(options.data.name, options.data_dir, spec)
    if not division.grouped:
        return None
    number = dict(zip(division.listing.files, division.groups.tolist(), strict=True))
    return np.array([number[images.files[int(row)]] for row in rows], np.int64)


def with_transform(images: ImageFiles, transform: Callable[..., Any]) -> ImageFiles:
    """The same images with another transform."""
    import copy

    other = copy.copy(images)
    other.transform = transform
    return other


def background_share(features: Tensor, pictures: Tensor) -> float:
    """How much more neighbours agree in the rim of the picture than in its middle, -1..1.

    For each part, 1 - (difference of an image to its five nearest neighbours in the features) /
    (difference to other images on average). The middle's share is taken from the rim's: above 0,
    what makes images neighbours lies at the rim, where the background is.

    Args:
        features: (N, D).
        pictures: (N, C, side, side), 0..1.
    """
    count = min(len(features), 500)
    if count < 20:
        return 0.0
    unit = nn.functional.normalize(features[:count].float(), dim=1)
    alike = unit @ unit.t()
    alike.fill_diagonal_(-2.0)
    near = alike.topk(NEIGHBOURS, dim=1).indices
    side = pictures.shape[-1]
    width = max(1, round(RIM * side))
    middle = torch.zeros(side, side, dtype=torch.bool)
    middle[2 * width : side - 2 * width, 2 * width : side - 2 * width] = True
    rim = torch.ones(side, side, dtype=torch.bool)
    rim[width : side - width, width : side - width] = False
    shares = []
    for part in (rim, middle):
        if not bool(part.any()):
            return 0.0
        flat = pictures[:count, :, part].flatten(1).float()
        distances = torch.cdist(flat, flat)
        usual = distances.sum() / (count * (count - 1))
        shares.append(1.0 - float(distances.gather(1, near).mean() / usual.clamp_min(1e-12)))
    return shares[0] - shares[1]


def final_verdict(
    watch: Watch,
    trunk: nn.Module,
    figures: dict[str, Any],
    references: References,
    classifier: nn.Module | None = None,
) -> Verdict | None:
    """Compare the trained network with pixels and with itself untrained; None without labels.

    A collective call. The test part is read here for the first time: the part that was held out,
    the val folder, or images of train whose labels were held out. A `classifier` that learned the
    labels is judged by what it says, and in place of the trunk.
    """
    sides = watch.final_sides(LEARNED, TESTED)
    if sides is None:
        return None
    networks: dict[str, nn.Module] = {} if classifier is not None else {"network": trunk}
    if isinstance(trunk, (ConViT, OtherTrunk)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(watch.options.seed))
            networks[UNTRAINED] = build_trunk(trunk.config).to(watch.device).eval()
    read, made = watch.compare(networks, sides, pixels=True)
    results = {name: watch.knn(*made[name], read) for name in networks}
    results[PIXELS] = references.by_pixels(made[PIXELS], read)
    truth = results[PIXELS].truth
    correct = {
        name: found.predictions == found.truth
        for name, found in results.items()
        if len(found.truth) == len(truth)
    }
    if classifier is not None:
        correct["network"] = _classified(watch, classifier, read)
    rows = labelled_rows(read.val, read.val_rows)
    predictions = Predictions(truth, correct, groups_of(watch.options, read.val, rows))
    learned = len(labelled_rows(read.bank, read.bank_rows))
    others = [name for name in correct if name != "network"]
    probe = "kNN" if classifier is None else "its own classifier, references by kNN"
    verdict = judge(predictions, "network", others, learned, probe)
    return replace(verdict, advice=next_steps(verdict, _seen(watch.options, figures, references)))


def _classified(watch: Watch, classifier: nn.Module, sides: Sides) -> Rows:
    """Whether a network's own classifier is right, of each labelled image of the test."""
    was_training = classifier.training
    classifier.eval()
    try:
        logits, rows = watch.reader.features(classifier, sides.val, sides.val_rows)
    finally:
        classifier.train(was_training)
    targets = np.asarray(sides.val.targets)[rows]
    known = targets >= 0
    right: Rows = logits.argmax(dim=1).numpy()[known] == targets[known]
    return right


def _seen(options: Resolved, figures: dict[str, Any], references: References) -> Seen:
    native = list(options.facts.native_size)
    return Seen(
        steps=int(options.derived.steps_per_epoch * options.optim.epochs),
        view=int(options.crops.global_size),
        native=int(min(native)) if native else None,
        rank=figures.get("rankme"),
        width=figures.get("width"),
        knn=references.knn,
        loss=references.loss,
        background=figures.get("background"),
        images=int(options.facts.images),
        method=str(options.method.name),
    )


def measure_knn(
    bank: Tensor, val: Tensor, sides: Sides, k: int, device: torch.device, metric: str
) -> KnnResult:
    """KNN of some features with the labels of their rows."""
    targets = np.asarray(sides.bank.targets)[sides.bank_rows]
    val_targets = np.asarray(sides.val.targets)[sides.val_rows]
    return evaluate_knn(
        FeatureSet(bank, targets, classes=sides.bank.classes),
        FeatureSet(val, val_targets, classes=sides.val.classes),
        ks=(min(k, int((targets >= 0).sum())),),
        device=device,
        metric=metric,
    )
