"""Settings for the size of a collection: which value, and why.

Published recipes are for 1.28 million photographs of 224 pixels. The tables
below say what to use for fewer and smaller images; each value comes with its
reason, and what the user gives wins.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from convit_ssl.errors import UserError

Value: TypeAlias = int | float | tuple[int | float, int | float]
Method: TypeAlias = Literal["dino", "simclr", "moco_v3", "swav", "barlow_twins"]


@dataclass(frozen=True)
class Choice:
    """A value, and the reason for it in words for the user."""

    value: Value
    reason: str


@dataclass(frozen=True)
class CollectionRule:
    """What a collection of fewer than ``below`` images wants."""

    below: int | float
    epochs: int
    batch_size: int
    dino_out_dim: int
    teacher_temperature: int | float
    momentum: int | float
    num_prototypes: int
    why: str


# Smallest first; the first row with more than the number of images is taken.
# out_dim, teacher temperature and momentum under 20,000: lightly-train's defaults.
COLLECTION_RULES = (
    CollectionRule(2_000, 400, 64, 1024, 0.02, 0.99, 128, "under 2,000 images"),
    CollectionRule(20_000, 200, 128, 1024, 0.02, 0.99, 512, "under 20,000 images"),
    CollectionRule(200_000, 200, 256, 4096, 0.04, 0.996, 1024, "under 200,000 images"),
    CollectionRule(float("inf"), 100, 512, 65536, 0.04, 0.996, 3000, "the published recipe"),
)


@dataclass(frozen=True)
class PublishedRun:
    """Length and batch of a method from 200,000 images up, in place of its row above."""

    epochs: int
    batch_size: int
    warmup_epochs: int
    why: str


# Batches are those of all processes together.
PUBLISHED_RUNS: dict[Method, PublishedRun] = {
    "dino": PublishedRun(100, 512, 10, "as published for ViT-S/16"),
    "simclr": PublishedRun(300, 1024, 40, "MoCo v3's protocol, its batch of 4096 cut to 1024"),
    "moco_v3": PublishedRun(300, 1024, 40, "as published, the batch of 4096 cut to 1024"),
    "swav": PublishedRun(100, 1024, 10, "as published, the batch of 4096 cut to 1024"),
    "barlow_twins": PublishedRun(300, 1024, 10, "as published, the batch of 2048 cut to 1024"),
}

# (shorter side at least, patch): 7 to 14 patches a side from 7 up to 224 pixels.
PATCH_RULES = ((112, 16), (56, 8), (28, 4), (14, 2), (1, 1))

# (shorter side at least, local crops)
LOCAL_CROP_RULES = ((96, 8), (48, 6), (24, 4), (1, 2))

# Smallest share of the area in a global crop, where local crops end; DINO's and SwAV's
# published ones, and 0.2 for two views as in MoCo v1 and v2.
SMALLEST_GLOBAL_SHARE: dict[Method, float] = {
    "dino": 0.4,
    "simclr": 0.2,
    "moco_v3": 0.2,
    "swav": 0.14,
    "barlow_twins": 0.2,
}

_LARGEST_GLOBAL_CROP = 224
_LOCAL_SHARE = 96 / 224  # of the global crop's side, as published
_FEWEST_LOCAL_PATCHES = 3
_SMALLEST_LOCAL_SIDE = 12  # pixels of the original image that a local crop should show
_WARMUP_SHARE = 0.1  # of the epochs, up to what is published
_STEPS_PER_EPOCH = 16  # at least, or the batch is halved

_MULTI_CROP = frozenset({"dino", "swav"})
_MOMENTUM_TEACHER = frozenset({"dino", "moco_v3"})


@dataclass
class _Chooser:
    """Collects choices; a value given by the user wins, with its own reason."""

    overrides: Mapping[str, Value]
    choices: dict[str, Choice] = field(default_factory=dict)

    def whole(self, name: str, value: int, reason: str) -> int:
        """A choice of a whole number; what later choices build on."""
        chosen = self.pick(name, value, reason)
        if isinstance(chosen, tuple) or chosen != int(chosen) or chosen < 0:
            raise UserError(f"{name}={chosen}: give a whole number, for example {name}={value}")
        return int(chosen)

    def pick(self, name: str, value: Value, reason: str) -> Value:
        """A choice of any kind."""
        given = name in self.overrides
        chosen = self.overrides[name] if given else value
        because = f"given (the rule says {_text(value)}: {reason})" if given else reason
        self.choices[name] = Choice(chosen, because)
        return chosen


def scale_to_data(
    num_images: int,
    image_size: int | tuple[int, int],
    method: Method = "dino",
    overrides: Mapping[str, Value] | None = None,
) -> dict[str, Choice]:
    """Settings for a collection, by name, each with its reason.

    Args:
        num_images: images to train on.
        image_size: pixels, one number or (height, width); of a typical image.
        method: which settings are needed.
        overrides: values that win; settings that follow from them follow.

    Returns:
        ``epochs, warmup_epochs, batch_size, patch_size, global_crop_size`` and
        ``global_crop_scale`` for all; ``num_local_crops, local_crop_size,
        local_crop_scale`` for DINO and SwAV; ``momentum`` for DINO and MoCo v3;
        ``out_dim, teacher_temperature`` for DINO; ``num_prototypes`` for SwAV.

    Raises:
        UserError: fewer than two images, no image size, an unknown override.
    """
    side = image_size if isinstance(image_size, int) else min(image_size)
    if num_images < 2 or side < 1:
        raise UserError(
            f"found {num_images} images of {side} pixels; self-supervised training compares "
            "images, so it needs at least 2 of at least 1 pixel: check the data folder"
        )
    chooser = _Chooser(overrides or {})
    rule = next(row for row in COLLECTION_RULES if num_images < row.below)
    _choose_length(chooser, rule, num_images, method)
    _choose_crops(chooser, side, method)
    _choose_method(chooser, rule, method)
    _refuse_unknown(chooser)
    return chooser.choices


def describe(choices: Mapping[str, Choice]) -> str:
    """One line per setting: name, value, reason."""
    width = max((len(name) for name in choices), default=0)
    values = {name: _text(choice.value) for name, choice in choices.items()}
    column = max((len(text) for text in values.values()), default=0)
    return "\n".join(
        f"{name:<{width}}  {values[name]:<{column}}  {choice.reason}"
        for name, choice in choices.items()
    )


def _choose_length(
    chooser: _Chooser, rule: CollectionRule, num_images: int, method: Method
) -> None:
    published = PUBLISHED_RUNS[method]
    large = rule is COLLECTION_RULES[-1]
    row = published if large else rule
    why = f"{num_images:,} images: {row.why}"
    epochs = chooser.whole("epochs", row.epochs, why)
    if epochs == published.epochs and large:
        chooser.whole("warmup_epochs", published.warmup_epochs, published.why)
    else:
        warmup = min(round(epochs * _WARMUP_SHARE), 10)
        chooser.whole("warmup_epochs", warmup, f"a tenth of {epochs} epochs, at most 10")
    batch = row.batch_size
    while batch > 2 and num_images // batch < _STEPS_PER_EPOCH:
        batch //= 2
    reason = why
    if batch != row.batch_size:
        reason += f"; halved until an epoch has {_STEPS_PER_EPOCH} steps"
    chooser.whole("batch_size", min(batch, num_images), reason)


def _choose_crops(chooser: _Chooser, side: int, method: Method) -> None:
    patch = _row(PATCH_RULES, min(side, _LARGEST_GLOBAL_CROP))
    patch = chooser.whole("patch_size", patch, f"7 to 14 patches along {side} pixels")
    if patch < 1:
        raise UserError(f"patch_size={patch}: give at least 1 pixel")
    crop = max(min(side, _LARGEST_GLOBAL_CROP) // patch, 1) * patch
    crop = chooser.whole(
        "global_crop_size", crop, f"the image's {side} pixels in whole patches, at most 224"
    )
    smallest = SMALLEST_GLOBAL_SHARE[method]
    chooser.pick("global_crop_scale", (smallest, 1.0), f"share of the image's area for {method}")
    if method not in _MULTI_CROP:
        return
    count = _row(LOCAL_CROP_RULES, side)
    chooser.whole("num_local_crops", count, f"images of {side} pixels; 8 as published from 96 up")
    local = max(round(crop * _LOCAL_SHARE / patch), _FEWEST_LOCAL_PATCHES) * patch
    chooser.whole(
        "local_crop_size",
        min(local, crop),
        f"3/7 of the global crop, in whole patches, at least {_FEWEST_LOCAL_PATCHES}",
    )
    least = round(min(max(0.05, (_SMALLEST_LOCAL_SIDE / side) ** 2), smallest / 2), 3)
    chooser.pick(
        "local_crop_scale",
        (least, smallest),
        f"0.05 as published, more where that is under {_SMALLEST_LOCAL_SIDE} pixels a side",
    )


def _choose_method(chooser: _Chooser, rule: CollectionRule, method: Method) -> None:
    if method in _MOMENTUM_TEACHER:
        momentum = rule.momentum if method == "dino" else 0.99
        reason = rule.why if method == "dino" else "as published for ViTs"
        chooser.pick("momentum", momentum, f"{reason}; rises to 1 by a cosine")
    if method == "dino":
        chooser.whole("out_dim", rule.dino_out_dim, rule.why)
        chooser.pick("teacher_temperature", rule.teacher_temperature, rule.why)
    if method == "swav":
        chooser.whole("num_prototypes", rule.num_prototypes, rule.why)


def _refuse_unknown(chooser: _Chooser) -> None:
    for name in chooser.overrides:
        if name not in chooser.choices:
            near = difflib.get_close_matches(name, chooser.choices, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(chooser.choices)}"
            raise UserError(f"{name} is no setting that is scaled to the data; {hint}")


def _row(rules: tuple[tuple[int, int], ...], side: int) -> int:
    return next(value for least, value in rules if side >= least)


def _text(value: Value) -> str:
    return f"{value[0]} to {value[1]}" if isinstance(value, tuple) else f"{value}"
