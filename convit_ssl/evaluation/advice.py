"""What to try next, from what was seen of a run; each sentence names what it goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convit_ssl.evaluation.features.frozen import SUGGESTED
from convit_ssl.evaluation.features.packaged import NETWORKS, PREFIX
from convit_ssl.evaluation.verdict import Verdict
from convit_ssl.methods import METHODS

# Steps of pretraining under which more of them have helped wherever it was tried here.
FEW_STEPS = 3000
SMALL_VIEW = 0.4  # side of a view, of the image's shorter side
LOW_RANK = 0.08  # of the channels
FALL = 0.02  # of kNN accuracy, from its best


@dataclass(frozen=True)
class Seen:
    """What is known of a network and its training; None where it is not.

    Attributes:
        steps: of pretraining.
        view: pixels of a global view.
        native: pixels of the images' shorter side.
        rank: effective rank of the features.
        width: channels.
        knn: accuracy at each evaluation, in order, as (epoch, share).
        loss: mean loss at the same epochs.
        background: how much more neighbours agree in the rim of the image than in its middle,
            -1..1; see `watch_reference.background_share`.
        images: trained on.
        method: that trained; it is not recommended.
    """

    steps: int | None = None
    view: int | None = None
    native: int | None = None
    rank: float | None = None
    width: int | None = None
    knn: Sequence[tuple[float, float]] = ()
    loss: Sequence[float] = ()
    background: float | None = None
    images: int | None = None
    method: str | None = None

    @classmethod
    def of_run(cls, entry: Any) -> Seen:
        """From what a checkpoint says of its run."""
        if not isinstance(entry, Mapping):
            return cls()
        options, data = _mapping(entry.get("config")), _mapping(entry.get("data"))
        derived, optim = _mapping(options.get("derived")), _mapping(options.get("optim"))
        figures = _mapping(entry.get("figures"))
        steps = (derived.get("steps_per_epoch") or 0) * (optim.get("epochs") or 0)
        native = data.get("native_size")
        model = _mapping(entry.get("model"))
        return cls(
            steps=steps or None,
            view=_mapping(options.get("crops")).get("global_size"),
            native=min(native) if isinstance(native, Sequence) and native else None,
            rank=figures.get("rankme"),
            width=model.get("embed_dim"),
            background=figures.get("background"),
            images=data.get("images"),
            method=_mapping(options.get("method")).get("name"),
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def next_steps(verdict: Verdict, seen: Seen) -> list[str]:
    """At most four sentences, the most promising first."""
    found: list[str] = []
    frozen = [
        name
        for name, difference in verdict.differences.items()
        if name.endswith(", frozen") and not difference.is_better
    ]
    if frozen:
        best = min(frozen, key=lambda name: verdict.differences[name].value)
        found.append(
            f"{best} does as well or better without any training on your images: use its "
            f"features, or start from it"
        )
    if verdict.outcome == "better":
        return found
    if verdict.saturated:
        return [
            "a reference is right on every image of the test, so this test cannot show a gain: "
            "test on more images or on a harder question, or use that reference"
        ]
    if falls_while_loss_falls(seen.knn, seen.loss):
        found.append(
            "kNN accuracy fell while the loss fell: the network solves its task by something "
            "unrelated to your classes. Stop earlier (checkpoints/best.torch), or set "
            "augmentation.min_crop_scale=0.4"
        )
    if seen.rank is not None and seen.width and seen.rank < LOW_RANK * seen.width:
        others = [m.name for m in METHODS.values() if m.spreads_features and m.name != seen.method]
        spreading = ", ".join(others)
        found.append(
            f"features use {seen.rank:.0f} of {seen.width} directions: lengthen the learning-rate "
            f"warm-up, use a larger batch, or try a method that spreads features ({spreading})"
        )
    if seen.background is not None and seen.background > 0.05:
        found.append(
            "nearest neighbours look alike at the border of the image rather than in the centre: "
            "the background dominates. Crop the images to their objects, or set "
            "augmentation.min_crop_scale=0.5 so that views share the object"
        )
    if seen.view and seen.native and seen.view < SMALL_VIEW * seen.native:
        found.append(
            f"views have {seen.view} pixels, the images {seen.native}: larger crops "
            f"(crops.global_size={_larger(seen.view, seen.native)}) show finer detail"
        )
    if seen.steps and seen.steps < FEW_STEPS:
        found.append(
            f"{seen.steps:,} steps is a short training; train for more epochs (optim.epochs)"
        )
    if seen.images and seen.images < 5000 and not frozen:
        found.append(
            f"{seen.images:,} images are few for training from scratch; a released frozen network "
            f"is often better (--reference {SUGGESTED}, or {PREFIX}{NETWORKS[0]})"
        )
    return found[:4]


def _larger(view: int, native: int) -> int:
    """Twice the side, or the image's, in whole patches of 16."""
    return max(view + 16, min(2 * view, native) // 16 * 16)


def falls_while_loss_falls(knn: Sequence[tuple[float, float]], loss: Sequence[float]) -> bool:
    """Whether accuracy has been below its best for two evaluations while the loss went on down.

    Args:
        knn: (epoch, accuracy 0..1), in order.
        loss: at the same evaluations.
    """
    if len(knn) < 3 or len(loss) != len(knn):
        return False
    values = [value for _, value in knn]
    best = max(range(len(values)), key=values.__getitem__)
    after = values[best + 1 :]
    return (
        len(after) >= 2
        and all(value < values[best] - FALL for value in after[-2:])
        and loss[-1] < loss[best]
    )
