"""What the tests of a run that learns from labels measured: for the record, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convit_ssl.reading import printable

# Figures that result.json also has at its top, as rows of `convit-ssl results` do.
OF_A_ROW = ("balanced_accuracy", "auc", "per_class")
_LISTED = 10
_WORST = 3
_SHOWN = (
    ("top1", "top1"), ("top5", "top5"), ("balanced accuracy", "balanced_accuracy"), ("AUC", "auc"),
)  # fmt: skip


def accuracy_figures(values: Mapping[str, list[Any]], classes: Sequence[str]) -> dict[str, Any]:
    """The figures on val; of several classifiers, the one that is best on the held-out part.

    Args:
        values: of the meter, per classifier.
        classes: names, for the recall of each.
    """
    chosen = 0
    if "holdout" in values:
        chosen = max(range(len(values["holdout"])), key=values["holdout"].__getitem__)
    figures = {key: value[chosen] for key, value in values.items() if key != "recall"}
    if "recall" in values:
        figures["per_class"] = dict(zip(map(str, classes), values["recall"][chosen], strict=False))
    return {**figures, "classifier": chosen} if len(values["top1"]) > 1 else figures


def described(figures: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal, without the epoch."""
    shares = (
        f"{name} {100 * figures[key]:.2f} %" for name, key in _SHOWN if figures.get(key) is not None
    )
    lines = ["val " + ", ".join(shares)]
    recall = {name: r for name, r in figures.get("per_class", {}).items() if r is not None}
    if len(recall) > 1:
        worst = sorted(recall.items(), key=lambda item: item[1])
        some = len(recall) > _LISTED
        shown = worst[:_WORST] if some else list(recall.items())
        words = f"lowest of {len(recall)} classes" if some else "by class"
        named = ", ".join(f"{printable(name)} {100 * share:.1f} %" for name, share in shown)
        lines.append(f"recall {words}: {named}")
    if missing := figures.get("unreadable"):
        lines.append(
            f"{missing:,} image{'s' if missing > 1 else ''} of val could not be read and "
            f"{'are' if missing > 1 else 'is'} left out; see unreadable.jsonl"
        )
    return lines
