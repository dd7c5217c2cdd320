"""kNN and linear probes from Python: how good features are, and whether they help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convit_ssl.api.common import Data, Weights, arguments_of, coded, compared, data_arguments
from convit_ssl.api.common import weights_argument as name_of
from convit_ssl.once import within_command

if TYPE_CHECKING:
    from convit_ssl.evaluation.verdict import Verdict


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe.

    Attributes:
        rows: a result for each reference and, last, for the network, as ``--json`` writes them.
        verdict: whether the network beats its references; None without references.
        probe: kNN or linear probe.
    """

    rows: tuple[dict[str, Any], ...]
    verdict: Verdict | None
    probe: str

    @property
    def accuracy(self) -> float:
        """Fraction of the test images that are classified correctly, from 0 to 1."""
        return float(self.rows[-1]["accuracy"])

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `accuracy`."""
        low, high = self.rows[-1]["interval_95"]
        return float(low), float(high)

    @property
    def per_class(self) -> dict[str, float | None]:
        """Recall of each class; None for a class without test images."""
        return dict(self.rows[-1]["per_class"])

    @property
    def references(self) -> dict[str, float]:
        """Accuracy of each reference by its name."""
        measured = [row for row in self.rows[:-1] if row["accuracy"] is not None]
        return {str(row["name"]): float(row["accuracy"]) for row in measured}

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of names, accuracies and intervals."""
        # With the extra "tables".
        import pandas

        columns = ("name", "kind", "accuracy", "interval_95", "balanced_accuracy", "seed")
        return pandas.DataFrame([{key: row.get(key) for key in columns} for row in self.rows])

    def __str__(self) -> str:
        """Accuracy, references and verdict, one line each."""
        low, high = self.interval
        lines = [
            f"{self.probe} of {self.rows[-1]['name']}: {100 * self.accuracy:.1f} % "
            f"({100 * low:.1f} to {100 * high:.1f})"
        ]
        lines += [f"  {name}: {100 * value:.1f} %" for name, value in self.references.items()]
        return "\n".join(lines + (self.verdict.lines() if self.verdict is not None else []))


def knn(
    weights: Weights,
    data: Data,
    *,
    references: bool | Sequence[str] = False,
    holdout: float | None = None,
    folds: int | None = None,
    group_by: str | None = None,
    labels: str | None = None,
    subset: str | None = None,
    k: Sequence[int] | None = None,
    metric: str | None = None,
    temperature: float | None = None,
    **options: Any,
) -> ProbeResult:
    """Measure k-nearest-neighbour accuracy on val, or on held-out images.

    Args:
        weights: a run, a checkpoint, weights of another project, ``random:convit_nano``, or
            ``pixels``.
        data: a folder of labelled images, or the name of a data set.
        references: also measure raw pixels and the untrained network, and give a verdict; names of
            networks such as ``timm:vit_small_patch16_224.dino`` are measured as well.
        holdout: fraction of the images to test on, without a val folder.
        folds: number of folds of a cross-validation, in which every image is tested once.
        group_by: which images stay on the same side of a split: ``folder:1``, ``column:NAME`` (of
            `labels`), or ``name:REGEX``.
        labels: ``table.csv:file,label,...``, ``folder:2`` or ``name:REGEX``; by default class
            folders.
        subset: labelled images of train to use, such as ``per_class=10``.
        k: numbers of neighbours; by default 10, 20, 100 and 200.
        metric: cosine (default) or euclidean.
        temperature: temperature of the votes by cosine similarity; by default 0.07.
        options: further options of ``convit-ssl knn``, such as ``device``, ``batch_size``,
            ``img_size`` or ``seed``.

    Raises:
        UserError: an error that you can fix; `code` is data or weights.
        TypeError: an unknown option.
    """
    given = {"k": None if k is None else list(k), "metric": metric, "temperature": temperature}
    divided = {"holdout": holdout, "folds": folds, "group_by": group_by, "labels": labels}
    from convit_ssl.cli import knn_command

    return _measured(
        "knn", weights, data, references, {**given, **divided, "subset": subset, **options},
        knn_command.measure, "kNN",
    )  # fmt: skip


def linear(
    weights: Weights,
    data: Data,
    *,
    references: bool | Sequence[str] = False,
    holdout: float | None = None,
    folds: int | None = None,
    group_by: str | None = None,
    labels: str | None = None,
    subset: str | None = None,
    epochs: int | None = None,
    **options: Any,
) -> ProbeResult:
    """Measure linear-probe accuracy; the head is chosen on held-out images of train.

    Args:
        weights: as for `knn`.
        data: as for `knn`.
        references: as for `knn`.
        holdout: as for `knn`.
        folds: as for `knn`.
        group_by: as for `knn`.
        labels: as for `knn`.
        subset: as for `knn`.
        epochs: epochs of the heads; by default 100. At least 2,000 and at most 12,500 steps.
        options: further options of ``convit-ssl linear``.

    Raises:
        UserError: an error that you can fix; `code` is data or weights.
        TypeError: an unknown option.
    """
    divided = {"holdout": holdout, "folds": folds, "group_by": group_by, "labels": labels}
    from convit_ssl.cli import linear_command

    return _measured(
        "linear", weights, data, references,
        {**divided, "subset": subset, "epochs": epochs, **options},
        linear_command.measure, "linear probe",
    )  # fmt: skip


@within_command()
def _measured(
    command: str,
    weights: Weights,
    data: Data,
    references: bool | Sequence[str],
    given: dict[str, Any],
    measure: Callable[..., list[dict[str, Any]]],
    probe: str,
) -> ProbeResult:
    from convit_ssl.cli.probe import division as probe_division
    from convit_ssl.cli.probe import report as probe_report
    from convit_ssl.evaluation.processes import run_in_processes

    where = {**data_arguments(data), **compared(references)}
    args = arguments_of(command, [name_of(weights)], {**given, **where})
    with coded("data"):
        probe_division.prepare(args)
    with coded("weights"):
        rows = run_in_processes(measure, args.processes, args) or []
    verdict = probe_report.judge_rows(rows, probe)
    for row in rows:
        row.pop("tested", None)
    return ProbeResult(tuple(rows), verdict, probe)
