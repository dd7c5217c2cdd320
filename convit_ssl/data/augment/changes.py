"""What a user changes in the views that a method is published with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from convit_ssl.errors import UserError

if TYPE_CHECKING:
    from convit_ssl.data.augment.spec import CropConfig

# One value for all views; or one for the first large crop, the second, and the small ones.
PerView: TypeAlias = "float | Sequence[float]"

PROBABILITIES = {
    "horizontal_flip": "horizontal_flip",
    "vertical_flip": "vertical_flip",
    "jitter": "jitter_prob",
    "grey": "grey_prob",
    "blur": "blur_prob",
    "solarize": "solarize_prob",
}
STRENGTHS = ("brightness", "contrast", "saturation", "hue")
COLOURS = ("jitter", *STRENGTHS, "grey", "blur")


def change_crops(
    crops: tuple[CropConfig, ...], changes: Mapping[str, Any]
) -> tuple[CropConfig, ...]:
    """The same groups of crops with some things changed.

    Args:
        crops: large crops first.
        changes: by name: one of `PROBABILITIES` or `STRENGTHS` as `PerView`; ``rotate90`` and
            ``blur_sigma`` as `CropConfig` has them.

    Raises:
        UserError: strengths without a probability or the other way round, or a list of values
            for views that do not exist.
    """
    lists = {name: value for name, value in changes.items() if _is_list(name, value)}
    for name, value in lists.items():
        if sum(crop.count for crop in crops) == 1:
            raise UserError(
                f"augmentation.{name}={list(value)}: there is one view of each image; give one "
                "number"
            )
    groups = _numbered(crops, apart=bool(lists))
    solarised = any(crop.solarize_prob for crop in crops)
    changed = tuple(_change(crop, view, changes, solarised) for view, crop in groups)
    _check_jitter(changed, changes)
    return changed


def refuse_for_timm(changes: Mapping[str, Any]) -> None:
    """Refuse changes that timm's augmentation of labelled images does not make.

    Raises:
        UserError: names the first, and what to set instead.
    """
    found = [name for name in COLOURS if name in changes]
    found += ["solarize"] * _positive(changes.get("solarize"))
    if found:
        raise UserError(
            f"augmentation.{found[0]} has no effect on RandAugment and random erasing, which are "
            "timm's; set method.rand_augment, method.color_jitter and method.erasing instead, or "
            "switch those two off (method.rand_augment=null method.erasing=0)"
        )


def _is_list(name: str, value: Any) -> bool:
    return name != "blur_sigma" and isinstance(value, (list, tuple))


def _numbered(crops: tuple[CropConfig, ...], apart: bool) -> list[tuple[int, CropConfig]]:
    """Groups with their kind of view: 0 the first large crop, 1 the second, 2 small ones.

    Args:
        crops: groups of crops.
        apart: make two groups of a first one that holds two crops, as values differ within it.
    """
    first = crops[0]
    if apart and first.count == 2:
        one = replace(first, count=1)
        crops = (one, one, *crops[1:])
    # A first group that still holds both large crops is followed by the small ones.
    start = 1 if crops[0].count == 2 else 0
    numbers = [0, *range(start + 1, start + len(crops))]
    return [(min(number, 2), crop) for number, crop in zip(numbers, crops, strict=True)]


def _change(crop: CropConfig, view: int, changes: Mapping[str, Any], solarised: bool) -> CropConfig:
    found: dict[str, Any] = {
        name: changes[name] for name in ("rotate90", "blur_sigma") if name in changes
    }
    for name, field in PROBABILITIES.items():
        value = _of_view(changes.get(name), view)
        spared = (  # one number is for the views that a method solarises
            name == "solarize" and solarised and not crop.solarize_prob
            and not _is_list(name, changes.get(name))
        )  # fmt: skip
        if value is not None and not spared:
            found[field] = value
    given = [_of_view(changes.get(name), view) for name in STRENGTHS]
    if any(value is not None for value in given):
        found["jitter"] = tuple(
            own if value is None else value for own, value in zip(crop.jitter, given, strict=True)
        )
    return replace(crop, **found)


def _of_view(value: Any, view: int) -> float | None:
    """The value for one kind of view; None where it is left as published."""
    if not isinstance(value, (list, tuple)):
        return None if value is None else float(value)
    return float(value[view]) if view < len(value) else None


def _check_jitter(crops: tuple[CropConfig, ...], changes: Mapping[str, Any]) -> None:
    """Refuse half of a colour jitter, which would do nothing."""
    often = any(crop.jitter_prob for crop in crops)
    strong = any(max(crop.jitter) > 0 for crop in crops)
    strengths = [name for name in STRENGTHS if _positive(changes.get(name))]
    if strengths and not often and changes.get("jitter") is None:
        raise UserError(
            f"augmentation.{strengths[0]} has no effect: this method does not jitter colours; "
            f"give a "
            "probability too, such as augmentation.jitter=0.8"
        )
    if _positive(changes.get("jitter")) and not strong:
        raise UserError(
            "augmentation.jitter has no effect: all strengths are 0; give one, such as "
            "augmentation.brightness=0.4"
        )


def _positive(value: Any) -> bool:
    listed = value if isinstance(value, (list, tuple)) else [value or 0]
    return any(one > 0 for one in listed)
