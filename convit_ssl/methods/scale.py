"""Settings for the size of a collection: which value, and why.

Published recipes are for 1.28 million photographs of 224 pixels. The tables
of `scale_tables` say what to use for fewer and smaller images; each value comes with its
reason, and what the user gives wins.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from convit_ssl.errors import UserError
from convit_ssl.methods.base import Method, get_method
from convit_ssl.methods.choices import Choice, Chooser, Value, text
from convit_ssl.methods.scale_tables import (
    COLLECTION_RULES,
    FEW_TOKENS_PATCHES,
    FEW_TOKENS_SIDE,
    FEWEST_LOCAL_PATCHES,
    LABELLED_RATES,
    LARGEST_GLOBAL_CROP,
    LOCAL_CROP_RULES,
    LOCAL_SHARE,
    MEASURED_WIDTH,
    PATCH_RULES,
    PLAIN_BELOW,
    PLAIN_RECIPE,
    SMALLEST_LABELLED,
    SMALLEST_LOCAL_SIDE,
    SMALLEST_UNLABELLED,
    STEPS_PER_EPOCH,
    TOKENS_PER_CHANNEL,
    WARMUP_SHARE,
    CollectionRule,
    Labels,
)

Kind = type[Method[Any]]


@dataclass(frozen=True)
class Budget:
    """What a slow machine allows: a run that ends, over the length that a rule would like.

    Attributes:
        epochs: the largest number.
        few_tokens: take larger patches. On a processor time goes with the tokens, and more
            epochs gained more than smaller patches (results/small_collections_cpu_2026-11-21).
        why: the reason, in words for the user.
        largest_crop: of the global crops, in pixels.
    """

    epochs: int
    few_tokens: bool
    why: str
    largest_crop: int = LARGEST_GLOBAL_CROP


def scale_to_data(
    num_images: int,
    image_size: int | tuple[int, int],
    method: str = "dino",
    overrides: Mapping[str, Value] | None = None,
    width: int = 432,
    budget: Budget | None = None,
    labels: Labels = "none",
) -> dict[str, Choice]:
    """Settings for a collection, by name, each with its reason.

    Args:
        num_images: images to train on.
        image_size: pixels, one number or (height, width); of a typical image.
        method: which settings are needed.
        overrides: values that win; settings that follow from them follow.
        width: channels of a token, which the learning rate and the heads follow.
        budget: what a slow machine allows.
        labels: how they are learned, which sets the rate and how images are changed. A handful
            of labels keeps a batch that teaches; without labels, one that has others to compare
            with.

    Returns:
        ``epochs, warmup_epochs, batch_size, patch_size, global_crop_size`` and
        ``global_crop_scale`` for all; ``num_local_crops, local_crop_size, local_crop_scale`` for
        methods with local crops; ``lr`` (per 256 images) and ``hidden_dim`` under 200,000 images;
        what the method chooses itself. For few labels, not those of a probe, ``mixup, cutmix,
        erasing, rand_augment`` and ``repeats``.

    Raises:
        UserError: fewer than two images, no image size, an unknown override.
    """
    side = image_size if isinstance(image_size, int) else min(image_size)
    if num_images < 2 or side < 1:
        raise UserError(
            f"found {num_images} images of {side} pixels; self-supervised training compares "
            "images, so it needs at least 2 images of at least 1 pixel; check the data folder"
        )
    chooser = Chooser(overrides or {})
    rule = _rule(num_images)
    smallest = SMALLEST_UNLABELLED if labels == "none" else SMALLEST_LABELLED
    kind, small = get_method(method), rule is not COLLECTION_RULES[-1]
    _choose_length(chooser, num_images, kind, budget, smallest)
    _choose_crops(chooser, side, kind, budget)
    if small:
        _choose_rate(chooser, kind, width, labels)
    kind.scale(chooser, rule, width, small)
    if labels in ("scratch", "fine-tuning"):
        _choose_recipe(chooser, num_images, rule, budget)
    _refuse_unknown(chooser)
    return chooser.choices


def describe(choices: Mapping[str, Choice]) -> str:
    """One line per setting: name, value, reason."""
    width = max((len(name) for name in choices), default=0)
    values = {name: text(choice.value) for name, choice in choices.items()}
    column = max((len(text) for text in values.values()), default=0)
    return "\n".join(
        f"{name:<{width}}  {values[name]:<{column}}  {choice.reason}"
        for name, choice in choices.items()
    )


def _choose_length(
    chooser: Chooser, num_images: int, method: Kind, budget: Budget | None, smallest: int
) -> None:
    rule, published = _rule(num_images), method.published
    large = rule is COLLECTION_RULES[-1]
    row = published if large else rule
    why = f"{num_images:,} images: {row.why}"
    length, because = row.epochs, why
    if budget and budget.epochs < length:
        length, because = budget.epochs, f"{budget.why}; without that limit {length}"
    epochs = chooser.whole("epochs", length, because)
    if epochs == published.epochs and large:
        chooser.pick("warmup_epochs", published.warmup_epochs, published.why)
    else:
        warmup = min(round(epochs * WARMUP_SHARE), 10)
        chooser.pick("warmup_epochs", warmup, f"a tenth of {epochs} epochs, at most 10")
    batch = row.batch_size
    if not large:
        batch = min(batch, method.small.batch_size)
    full = batch
    while batch > num_images or (batch > smallest and num_images // batch < STEPS_PER_EPOCH):
        batch //= 2
    reason = why
    if batch != full:
        reason += f"; halved until an epoch has {STEPS_PER_EPOCH} steps, but not below {smallest}"
    chooser.whole("batch_size", batch, reason)


def _choose_crops(chooser: Chooser, side: int, method: Kind, budget: Budget | None) -> None:
    largest = budget.largest_crop if budget else LARGEST_GLOBAL_CROP
    shown = min(side, largest)
    patch, because = _row(PATCH_RULES, shown), f"7 to 14 patches along {side} pixels"
    if budget and budget.few_tokens:
        fitting = (size for size in FEW_TOKENS_PATCHES if shown // size >= FEW_TOKENS_SIDE)
        patch = next(fitting, 1)
        because = f"few patches along {side} pixels: epochs count for more on a processor"
    patch = chooser.whole("patch_size", patch, because)
    if patch < 1:
        raise UserError(f"patch_size={patch}: give at least 1 pixel")
    crop = max(shown // patch, 1) * patch
    why = f"the image's {side} pixels in whole patches, at most {largest}"
    if largest < min(side, LARGEST_GLOBAL_CROP):
        why += " on a processor: epochs count for more; crops.global_size=224 shows finer detail"
    crop = chooser.whole("global_crop_size", crop, why)
    smallest = method.smallest_share
    alone = bool(budget and budget.few_tokens and method.local_crops)
    if alone and not chooser.overrides.get("num_local_crops"):
        smallest = 0.25  # the global crops have to differ by themselves
    chooser.pick(
        "global_crop_scale", (smallest, 1.0), f"fraction of the image's area for {method.name}"
    )
    most = method.local_crops
    if not most:
        return
    count = most if side >= LOCAL_CROP_RULES[0][0] else min(_row(LOCAL_CROP_RULES, side), most)
    reason = f"images of {side} pixels; {most} as published from 96 up"
    if alone:
        count, reason = 0, "on a processor epochs instead; 4 of 32 pixels gained little"
    chooser.whole("num_local_crops", count, reason)
    local = max(round(crop * LOCAL_SHARE / patch), FEWEST_LOCAL_PATCHES) * patch
    chooser.whole(
        "local_crop_size",
        min(local, crop),
        f"3/7 of the global crop, in whole patches, at least {FEWEST_LOCAL_PATCHES}",
    )
    least = round(min(max(0.05, (SMALLEST_LOCAL_SIDE / side) ** 2), smallest / 2), 3)
    chooser.pick(
        "local_crop_scale",
        (least, smallest),
        f"0.05 as published, more where that is under {SMALLEST_LOCAL_SIDE} pixels a side",
    )


def _choose_rate(chooser: Chooser, method: Kind, width: int, labels: Labels) -> None:
    """Learning rate and head, whose published ones are for wide networks."""
    batch = chooser.number("batch_size")
    step = LABELLED_RATES.get(labels, method.small.rate)
    rate = float(f"{step * min(MEASURED_WIDTH / width, 1.0) * 256 / batch:.2g}")
    if method.small.optimizer == "muon":
        if _pays_for_muon(chooser, method, width):
            why = "in as many steps its features are better than AdamW's"
            chooser.pick("optimizer", "muon", why)
        else:
            why = "Muon would cost much of a step of so few patches with a network of this width"
            chooser.pick("optimizer", "adamw", why)
    chooser.pick(
        "lr", rate, f"per 256 images: {rate * batch / 256:.2g} a step; less for wider networks"
    )
    if "hidden_dim" in {option.name for option in fields(method.Options)}:
        hidden = min(4 * width, 2048)
        chooser.whole("hidden_dim", hidden, f"four times the network's {width}, at most 2048")


def _pays_for_muon(chooser: Chooser, method: Kind, width: int) -> bool:
    """Whether Muon's products are few beside those of a step."""
    crop, patch = chooser.number("global_crop_size"), chooser.number("patch_size")
    tokens = method.global_crops * chooser.number("batch_size") * (crop // patch) ** 2
    return tokens >= TOKENS_PER_CHANNEL * width


def _choose_recipe(
    chooser: Chooser, num_images: int, rule: CollectionRule, budget: Budget | None
) -> None:
    """Leave out what the published recipe of labels does to images, where a run is too short."""
    epochs = chooser.number("epochs")
    short = budget is not None and epochs < rule.epochs
    if num_images < PLAIN_BELOW or short:
        why = f"under {PLAIN_BELOW:,} images" if num_images < PLAIN_BELOW else "a short run"
        for name, value in PLAIN_RECIPE.items():
            chooser.pick(name, value, f"{why}: the published recipe needs more epochs of more")


def _refuse_unknown(chooser: Chooser) -> None:
    for name in chooser.overrides:
        if name not in chooser.choices:
            near = difflib.get_close_matches(name, chooser.choices, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(chooser.choices)}"
            raise UserError(f"{name} is not a setting that is scaled to the data; {hint}")


def _rule(num_images: int) -> CollectionRule:
    return next(row for row in COLLECTION_RULES if num_images < row.below)


def _row(rules: tuple[tuple[int, int], ...], side: int) -> int:
    return next(value for least, value in rules if side >= least)
