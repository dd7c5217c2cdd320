"""results.json and results.md of a baselines study, after each cell."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from convit_ssl.cli.study.baselines_rows import (
    LABELS,
    RESNET,
    of_deit,
    same_with_convit,
    same_with_deit,
)
from convit_ssl.evaluation.paired import Difference, Predictions
from convit_ssl.evaluation.results import record_folder, write_json
from convit_ssl.evaluation.studies.baselines import (
    by_row,
    differences,
    markdown,
    summarise,
    verdict,
)
from convit_ssl.evaluation.studies.design import AUTO
from convit_ssl.evaluation.studies.page import surroundings

if TYPE_CHECKING:
    from convit_ssl.cli.study.baselines import Baselines

FIRST = ("raw pixels", "untrained")


def write(study: Baselines) -> None:
    """The table of the cells that are there."""
    tested = study.tested_images()
    truth = np.asarray(tested["truth"])
    groups = tested["groups"]
    predictions = Predictions(truth, {}, None if groups is None else np.asarray(groups))
    balanced = predictions.uneven
    cells = sorted(study.cells, key=lambda cell: _place(study, cell["row"]))  # stable
    rows = summarise(cells, truth, tested["classes"], balanced)
    compared = {
        name: differences(study.cells, name, _references(study, name), predictions, balanced)
        for name in _judged(study)
    }
    seeds = {name: len(cells) for name, cells in by_row(study.cells).items()}
    verdicts = [
        verdict(found, name, seeds[name], predictions, tested["labels"], balanced)
        for name, found in compared.items()
        if found
    ]
    between = _between(study, predictions, balanced)
    deit = _against_deit(study, predictions, balanced)
    raced = _raced(study, predictions, balanced)
    about = surroundings()
    found: dict[str, Any] = {
        "study": "baselines",
        "title": f"Baselines on {study.args.data}",
        "data": study.args.data,
        "methods": study.args.methods,
        "chosen_method": study.best_method(),
        "note": study.args.note,
        "metric": "balanced_accuracy" if balanced else "accuracy",
        "measured_on": study.part,
        "images": {"train": tested["labels"], "test": len(truth)},
        "rows": rows,
        "differences": _as_dicts(compared),
        "between_methods": _as_dicts(between),
        **({"against_deit": {name: one.as_dict() for name, one in deit.items()}} if deit else {}),
        "verdicts": verdicts,
        **({"race": raced} if raced else {}),
        "not_measured": study.missing,
        "settings": {"epochs": study.args.epochs, "minutes": study.args.minutes,
                     "subset": study.args.subset, "set": study.args.set},
        **about,
    }  # fmt: skip
    write_json(found, study.out / "results.json")
    page = [f"# {found['title']}", "", *([study.args.note, ""] if study.args.note else [])]
    page += markdown(rows, compared, verdicts, study.missing, balanced)
    page += _between_page(between)
    page += _deit_page(deit)
    page += _race_page(raced)
    page += _how(study, about, len(truth), tested["labels"])
    (study.out / "results.md").write_text("\n".join(page))
    if study.args.record:
        place = record_folder(study.args.record)
        shutil.copyfile(study.out / "results.json", place / "result.json")
        shutil.copyfile(study.out / "results.md", place / "README.md")


def _as_dicts(compared: dict[str, dict[str, Difference]]) -> dict[str, dict[str, Any]]:
    return {
        name: {other: one.as_dict() for other, one in others.items()}
        for name, others in compared.items()
    }


def _place(study: Baselines, row: str) -> tuple[int, int, bool]:
    """References that learned nothing, pretraining, labels alone, fine-tuning.

    Each row of DeiT follows the same row of ConViT.
    """
    name, deit = same_with_convit(row), of_deit(row)
    if name in FIRST:
        return 0, FIRST.index(name), deit
    if name in study.args.methods:
        return 2, study.args.methods.index(name), deit
    if name in (LABELS, RESNET):
        return 3, (LABELS, RESNET).index(name), deit
    return 4 if name.startswith("pretrained (") else 1, 0, deit


def _judged(study: Baselines) -> list[str]:
    """The rows that a verdict is about: each pretraining, and fine-tuning from it."""
    return [
        name
        for name in by_row(study.cells)
        if (name in study.args.methods or name.startswith("pretrained (")) and not of_deit(name)
    ]


def _references(study: Baselines, name: str) -> list[str]:
    """All rows that do not hold a pretraining of this study."""
    judged = _judged(study)
    return [row for row in by_row(study.cells) if row not in (*judged, name) and not of_deit(row)]


def _between(
    study: Baselines, predictions: Predictions, balanced: bool
) -> dict[str, dict[str, Difference]]:
    """Each method of pretraining against those before it; for auto see `_raced`."""
    measured = {cell["row"] for cell in study.cells}
    methods = [name for name in study.args.methods if name in measured and name != AUTO]
    return {
        name: differences(study.cells, name, methods[:place], predictions, balanced)
        for place, name in enumerate(methods)
        if place
    }


def _between_page(between: dict[str, dict[str, Difference]]) -> list[str]:
    lines = [
        f"| {name} | {other} | {one.in_points()} |"
        for name, others in between.items()
        for other, one in others.items()
    ]
    head = ["## Methods against each other, points", "", "| row | against | difference |"]
    return [*head, "|---|---|---|", *lines, ""] if lines else []


def _against_deit(
    study: Baselines, predictions: Predictions, balanced: bool
) -> dict[str, Difference]:
    """Each row of ConViT against the same row with DeiT, where both are measured."""
    measured = by_row(study.cells)
    found = {}
    for name in measured:
        other = same_with_deit(name)
        if not of_deit(name) and other in measured:
            (found[name],) = differences(study.cells, name, [other], predictions, balanced).values()
    return found


def _deit_page(found: dict[str, Difference]) -> list[str]:
    lines = [
        f"| {name.removesuffix(', ConViT')} | {one.in_points()} |" for name, one in found.items()
    ]
    head = ["## ConViT against DeiT, points", "", "| row | ConViT minus DeiT |", "|---|---|"]
    return [*head, *lines, ""] if lines else []


def _raced(study: Baselines, predictions: Predictions, balanced: bool) -> dict[str, Any]:
    """What the races of ``auto`` took, and how that compares with each fixed choice."""
    cells = [cell for cell in study.cells if cell["row"] == AUTO]
    if not cells:
        return {}
    measured = {cell["row"] for cell in study.cells}
    fixed = [name for name in study.args.methods if name in measured and name != AUTO]
    beside = differences(study.cells, AUTO, fixed, predictions, balanced)
    return {
        "taken": {str(cell["seed"]): cell.get("race") for cell in cells},
        "against_fixed": {name: one.as_dict() for name, one in beside.items()},
        "in_words": {name: one.in_points() for name, one in beside.items()},
    }


def _race_page(raced: dict[str, Any]) -> list[str]:
    if not raced:
        return []
    lines = ["## The race against fixed choices", "", "| auto against | points |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in raced["in_words"].items()]
    taken = [
        f"- seed {seed}: {race['reason']} (the race took {race['core_seconds'] / 60:.2f} "
        "core-minutes, which are counted)"
        for seed, race in raced["taken"].items()
        if race
    ]
    return [*lines, "", *taken, ""]


def _how(study: Baselines, about: dict[str, Any], tested: int, labels: int) -> list[str]:
    machine = about["hardware"]
    return [
        "## How it was made",
        "",
        f"- Command: `{shlex.join(about['command'])}`",
        f"- Machine: {machine['cpu']}, {machine['cores']} core(s); "
        f"torch {about['versions'].get('torch', '?')}, commit {about['commit'] or 'unknown'}.",
        f"- {labels:,} labelled images of train, and {tested:,} of {study.part}, which were used "
        "only for this table: settings were fixed beforehand, and the penalty of the linear probe "
        "and the method to fine-tune were chosen on images held out of train. Raw pixels use the "
        "better of cosine and Euclidean distance.",
        *(
            [
                "- DeiT was pretrained for as many epochs as ConViT, and learned from labels for "
                "the processor time that ConViT had."
            ]
            if study.args.deit
            else []
        ),
        *(
            ["- Nothing was trained with labels here (`--no-labels`)."]
            if study.args.no_labels
            else []
        ),
        "- Core-minutes are the processor time of training over all threads, including loading "
        "and a few seconds to start the process, but without probes. Training with labels alone "
        "gets the time of pretraining and fine-tuning together.",
        "- The interval of a difference spans the t interval over seeds and the bootstrap interval "
        "over test images. Rows that learned labels are compared by their own classifier, the "
        "others by the linear probe.",
        *_load(study),
        "",
    ]


def _load(study: Baselines) -> list[str]:
    """How busy the machine was, where the cells say it."""
    loads = [cell["load_average"] for cell in study.cells if "load_average" in cell]
    if not loads:
        return []
    return [
        f"- Load average of the machine while it ran: {min(loads):.1f} to {max(loads):.1f}. "
        "Processor time grows on a busy machine, so core-minutes are then an upper bound."
    ]
