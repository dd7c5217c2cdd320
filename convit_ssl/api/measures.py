"""Segmentation, retrieval, label-free scores and the check of a collection from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convit_ssl.api.common import Data, Weights, arguments_of, coded, compared, data_arguments
from convit_ssl.api.common import weights_argument as name_of

if TYPE_CHECKING:
    from convit_ssl.evaluation.verdict import Verdict


@dataclass(frozen=True)
class SegmentResult:
    """What `segment` measured.

    Attributes:
        results: metrics by name of the network (it comes last) and probe: miou, boundary_iou,
            pixel_accuracy and others, as ``--json`` writes them.
        verdicts: by probe; empty without references.
        classes: class numbers in the masks.
        images: number of images that the probes were trained on, and tested on.
        not_measured: references that could not be measured, with the reason.
    """

    results: dict[str, dict[str, dict[str, Any]]]
    verdicts: dict[str, Verdict]
    classes: tuple[int, ...]
    images: tuple[int, int]
    not_measured: dict[str, str]

    def __str__(self) -> str:
        """A line for each network and probe, and the verdicts."""
        lines = [
            f"{name}, {probe}: mIoU {100 * figures['miou']:.1f} %"
            for name, by_probe in self.results.items()
            for probe, figures in by_probe.items()
        ]
        for probe, verdict in self.verdicts.items():
            first, *others = verdict.lines()
            lines += [f"{probe}: {first}", *others]
        return "\n".join(lines)


@dataclass(frozen=True)
class RetrieveResult:
    """What `retrieve` measured.

    Attributes:
        results: metrics by name of the network, which comes last: recall@1, recall@5, mAP.
        verdict: by recall@1; None without references.
        not_measured: references that could not be measured, with the reason.
        left_out: a sentence about images that cannot be read; None without any.
    """

    results: dict[str, dict[str, Any]]
    verdict: Verdict | None
    not_measured: dict[str, str]
    left_out: str | None = None

    def __str__(self) -> str:
        """A line for each network, and the verdict."""
        lines = [
            f"{name}: recall@1 {100 * figures['recall@1']:.1f} %"
            for name, figures in self.results.items()
        ]
        return "\n".join(lines + (self.verdict.lines() if self.verdict is not None else []))


@dataclass(frozen=True)
class ScoreResult:
    """Label-free scores. None of them is an accuracy.

    Attributes:
        rows: name and scores of raw pixels, of the untrained network, and last of the network.
        passed: the scores that ranked networks correctly in this project's study; only these say
            anything about which network is better.
    """

    rows: tuple[dict[str, Any], ...]
    passed: tuple[str, ...]

    @property
    def scores(self) -> dict[str, float | None]:
        """Those of the network: rankme, lidar, alpha_req, two_view, gate_motion."""
        return dict(self.rows[-1]["scores"])

    def __str__(self) -> str:
        """What the scores say, in sentences."""
        from convit_ssl.evaluation.label_free.report import scores_lines

        return "\n".join(scores_lines(self.rows, self.passed))


@dataclass(frozen=True)
class CheckResult:
    """What `check` found.

    Attributes:
        findings: one dictionary per row of check.csv: kind, file, part, label, group, the same of
            the other image of a pair, and detail.
        counts: findings by kind.
        is_clean: whether nothing serious was found, which is the command's exit code 0.
        page: check.html, with thumbnails.
        table: check.csv.
        lines: the summary.
    """

    findings: tuple[dict[str, str], ...]
    counts: dict[str, int]
    is_clean: bool
    page: Path
    table: Path
    lines: tuple[str, ...]

    def __str__(self) -> str:
        """The summary."""
        return "\n".join(self.lines)


def segment(
    weights: Weights,
    data: Data,
    masks: str | os.PathLike[str],
    *,
    references: bool | Sequence[str] = False,
    probe: Sequence[str] | None = None,
    holdout: float | None = None,
    group_by: str | None = None,
    ignore: int | None = None,
    longest: int | None = None,
    predictions: str | os.PathLike[str] | None = None,
    **options: Any,
) -> SegmentResult:
    """Measure segmentation with frozen patch features, by kNN and by a linear classifier.

    Args:
        weights: a run, a checkpoint, weights of another project, ``random:convit_nano``, or a
            frozen network such as ``timm:resnet50=FILE``.
        data: a folder of images of any height and width, or the name of a data set.
        masks: folder of masks with the paths and names of the images, one class number per pixel.
        references: also measure raw pixels and the untrained network, and give verdicts; names of
            frozen networks are measured as well.
        probe: "knn", "linear" or both.
        holdout: fraction of the images to test on, without a val folder.
        group_by: which images stay on the same side of a split: ``folder:1``, ``name:REGEX``.
        ignore: class number of pixels to ignore; by default 255.
        longest: largest length of the longer side in pixels; by default 448.
        predictions: folder for the predicted masks of the test images.
        options: further options of ``convit-ssl segment``, such as ``device`` or ``img_size``.

    Raises:
        UserError: an error that you can fix; `code` is data.
        TypeError: an unknown option.
    """
    from convit_ssl.cli import segment_command

    given = {
        "probe": None if probe is None else list(probe), "holdout": holdout,
        "group_by": group_by, "ignore": ignore, "longest": longest, "predictions": predictions,
        **options, **data_arguments(data), **compared(references),
    }  # fmt: skip
    args = arguments_of("segment", [name_of(weights), "--masks", os.fspath(masks)], given)
    with coded("data"):
        found = segment_command.measure(args)
    return SegmentResult(
        {
            name: {one: counts.as_dict() for one, counts in by_probe.items()}
            for name, by_probe in found.results.items()
        },
        found.verdicts,
        tuple(found.classes),
        found.images,
        {one.name: one.reason for one in found.missing},
    )


def retrieve(
    weights: Weights,
    data: Data,
    *,
    references: bool | Sequence[str] = False,
    by: str = "label",
    split: str | None = None,
    labels: str | None = None,
    group_by: str | None = None,
    **options: Any,
) -> RetrieveResult:
    """Measure how often the images most similar to an image are of its class or group.

    Args:
        weights: as for `convit_ssl.knn`.
        data: a folder of images, or the name of a data set.
        references: also measure raw pixels and the untrained network, and give a verdict; names of
            frozen networks are measured as well.
        by: "label" or "group". By label with `group_by`, images of the same group are not counted.
        split: train, val or test; val by default if there is one.
        labels: ``table.csv:file,label,...``, ``folder:2`` or ``name:REGEX``.
        group_by: ``folder:1``, ``column:NAME`` (of `labels`), or ``name:REGEX``.
        options: further options of ``convit-ssl retrieve``, such as ``token`` or ``device``.

    Raises:
        UserError: an error that you can fix; `code` is data.
        TypeError: an unknown option.
    """
    from convit_ssl.cli import retrieve_command

    given = {
        "by": by, "split": split, "labels": labels, "group_by": group_by, **options,
        **data_arguments(data), **compared(references),
    }  # fmt: skip
    args = arguments_of("retrieve", [name_of(weights)], given)
    with coded("data"):
        found = retrieve_command.measure(args)
    return RetrieveResult(
        {name: one.as_dict() for name, one in found.found.items()},
        found.verdict,
        {one.name: one.reason for one in found.missing},
        found.left_out,
    )


def scores(
    weights: Weights, data: Data, *, split: str = "train", images: int | None = None, **options: Any
) -> ScoreResult:
    """Compute scores that need no labels.

    RankMe, LiDAR, alpha-ReQ, two-view retrieval and gate motion.

    Args:
        weights: a run, a checkpoint, weights of another project, or ``random:convit_nano``.
        data: a folder of images, or the name of a data set.
        split: train, val or test.
        images: largest number of images to read; by default 2,000.
        options: further options of ``convit-ssl scores``, such as ``token`` or ``device``.

    Raises:
        UserError: an error that you can fix; `code` is data.
        TypeError: an unknown option.
    """
    from convit_ssl.cli.study.score_rows import measure
    from convit_ssl.evaluation.label_free.scores import PASSED

    given = {"split": split, "images": images, **options, **data_arguments(data)}
    args = arguments_of("scores", [name_of(weights)], given)
    with coded("data"):
        return ScoreResult(tuple(measure(args)), tuple(PASSED))


def check(
    data: Data,
    *,
    out: str | os.PathLike[str] = "check",
    holdout: float | None = None,
    group_by: str | None = None,
    labels: str | None = None,
    trunk: Weights | None = None,
    ignore: Sequence[str] = (),
    **options: Any,
) -> CheckResult:
    """Find duplicates, leaks between train and test, and bad images of a collection.

    Args:
        data: a folder of images, or the name of a data set.
        out: folder for check.html and check.csv.
        holdout: fraction of the images to hold out, to look for leaks across that split.
        group_by: ``folder:1``, ``column:NAME`` (of `labels`), or ``name:REGEX``.
        labels: ``table.csv:file,label,...``, ``folder:2`` or ``name:REGEX``.
        trunk: also compare images by the features of this network.
        ignore: kinds of findings to accept, such as ``["odd"]``.
        options: further options of ``convit-ssl check``, such as ``folds`` or ``split``.

    Raises:
        UserError: the collection cannot be read; `code` is data.
        TypeError: an unknown option.
    """
    from convit_ssl.cli import check_command

    where = data_arguments(data)
    form = where["data"] if "data_dir" in where and where["data"] != "folder" else None
    given = {
        "format": form, "out": os.fspath(out), "holdout": holdout, "group_by": group_by,
        "labels": labels, "trunk": None if trunk is None else name_of(trunk),
        "ignore": list(ignore), **options,
    }  # fmt: skip
    args = arguments_of("check", [where.get("data_dir", where["data"])], given)
    with coded("data"):
        found = check_command.look(args)
    return CheckResult(
        tuple(found.rows()), found.counts(), found.is_clean, found.page, found.table,
        tuple(found.lines),
    )  # fmt: skip
