"""What `knn` and `linear` share at the end: result rows, one table, one JSON file."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convit_ssl.cli.probe import references as probe_references
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.probe.references import Missing, asked
from convit_ssl.cli.probe.sources import Source, open_source
from convit_ssl.evaluation.advice import Seen, next_steps
from convit_ssl.evaluation.features.fingerprint import experiment_settings, hash_json
from convit_ssl.evaluation.results import result_row, results_table, write_json
from convit_ssl.evaluation.tested import Tested, join
from convit_ssl.evaluation.verdict import Verdict, judge
from convit_ssl.terminal import Terminal

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that reports results."""
    probe_references.add_arguments(parser)
    parser.add_argument(
        "--json", metavar="FILE", help="write results and all settings to this file"
    )


def measure_all(
    args: argparse.Namespace, measure: Callable[[Source | None, argparse.Namespace], Row]
) -> list[Row]:
    """A result row for the trunk and one for each reference, which come first.

    Args:
        args: the command's options.
        measure: the row of one source; None reads a features folder.

    Raises:
        UserError: references of something that is no trunk.
    """
    if probe_sources.is_features_folder(args):
        return [measure(None, args)]
    own = open_source(args)
    rows: list[Row] = []
    for reference in probe_references.references(args, own) if asked(args) else ():
        if isinstance(reference, Missing):
            name = f"{reference.name} (not measured)"
            rows.append({"name": name, "accuracy": None, "missing": reference.reason})
        else:
            rows.append(measure(reference, args))
    rows.append(measure(own, args))
    return rows


def row(
    kind: str,
    source: Source | None,
    tested: Tested,
    figure: Mapping[str, Any],
    started: float,
    args: argparse.Namespace,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """One result row for what was measured on the features of train and val.

    It holds, under "tested", what was said of each image; `show` takes it away again.
    """
    sets = tested.sets
    train, val = sets["train"].manifest, sets["val"].manifest
    marks = {f"{split}_data": sets[split].manifest["fingerprint"]["data"] for split in sets}
    division = getattr(args, "division", None)
    if division is not None:
        marks["split"] = division.digest()
        settings = {**settings, "split": division.describe()}
    elif getattr(args, "on", None) == "test":
        settings = {**settings, "on": "test"}
    marks |= {key: train["fingerprint"][key] for key in ("transform", "columns", "precision")}
    options = ((source.provenance if source else {}).get("entry") or {}).get("config")
    if isinstance(options, dict):  # rows of one network, pretrained in two ways, are no repetition
        marks["pretraining"] = hash_json(experiment_settings(options))
    speed = val.get("images_per_s")
    made = result_row(
        kind,
        source.name if source else args.checkpoint,
        figure,
        {
            "data": args.data,
            "subset": args.subset,
            "mask": args.mask,
            **settings,
        },
        marks,
        seed=args.seed,
        seconds=round(time.perf_counter() - started, 2),
        images_per_s=speed,
        images={"train": tested.learned, "val": len(tested.truth)},
        unreadable={split: len(sets[split].unreadable) for split in sets},
        left_out=[text for split in sets if (text := sets[split].left_out(split))],
        weights=train["fingerprint"]["weights"],
        provenance={
            key: value
            for key, value in (source.provenance if source else {}).items()
            if key not in ("entry", "available", "not_loaded")
        },
    )
    entry = source.provenance.get("entry") if source else None
    return {**made, "tested": dataclasses.replace(tested, entry=entry)}


def heading(name: str, row: Mapping[str, Any], args: argparse.Namespace) -> str:
    """The title of a table: what was measured, on which images."""
    images = row["images"]
    division = getattr(args, "division", None)
    if division is None:
        tested = getattr(args, "on", None) or "val"
        return f"{name}: {images['val']:,} images of {tested}, from {images['train']:,} of train"
    groups = f" in {len(division.group_names)} groups" if division.grouped else ""
    if division.folds > 1:
        return (
            f"{name}: {images['val']:,} images{groups}, each tested once in {division.folds} folds"
        )
    return (
        f"{name}: {images['val']:,} held-out images, from {images['train']:,} others"
        f"{groups and f', of {len(division.group_names)} groups'}"
    )


def show_classes(row: Mapping[str, Any]) -> None:
    """One line: the share recognised of each class, or of the ten weakest."""
    known = {name: value for name, value in row["per_class"].items() if value is not None}
    worst = sorted(known.items(), key=lambda item: item[1])[:10]
    text = " · ".join(f"{name} {100 * value:.1f}" for name, value in worst)
    which = "recall by class" if len(known) <= 10 else "ten weakest classes by recall"
    Terminal().print(f"{which}, %: {text}", soft_wrap=True)


def show(
    rows: Sequence[dict[str, Any]], title: str, args: argparse.Namespace, probe: str
) -> Verdict | None:
    """Print the table and the verdict, and write the JSON file.

    Args:
        rows: of `measure_all`; the last is the trunk's.
        title: of the table.
        args: the command's options.
        probe: for the verdict: kNN or linear probe.
    """
    console = Terminal()
    verdict = judge_rows(rows, probe)
    seen = _seen_before(rows[-1]["tested"].entry, args)
    for row in rows:
        row.pop("tested", None)
    console.print(results_table(rows, title))
    notes = [note for found in rows for note in found.get("notes", [])]
    division = getattr(args, "division", None)
    notes += list(division.notes) if division is not None else []
    notes += seen + list(rows[-1].get("left_out", []))
    for text in dict.fromkeys(notes):
        console.print(f"note: {text}", style="yellow", soft_wrap=True)
    for found in rows:
        if "missing" in found:
            text = f"{found['name']}: {found['missing']}"
            console.print(text, style="yellow", soft_wrap=True)
    if verdict is not None:
        for line in verdict.lines():
            style = "bold" if line == verdict.text else ""
            console.print(line, style=style, soft_wrap=True)
    if args.json:
        kept: dict[str, Any] = {"results": [row for row in rows if "missing" not in row]}
        more: dict[str, Any] = {"verdict": verdict.as_dict()} if verdict is not None else {}
        missing = [row for row in rows if "missing" in row]
        more |= {"not_measured": missing} if missing else {}
        write_json({**kept, **more}, args.json)
        console.print(f"written: {args.json}", soft_wrap=True)
    return verdict


def judge_rows(rows: Sequence[Mapping[str, Any]], probe: str) -> Verdict | None:
    """The verdict on the last row against those before it; None without references."""
    measured = [row for row in rows if "tested" in row]
    if len(measured) < 2:
        return None
    names = [str(row["name"]) for row in measured]
    names = [
        name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)
    ]
    own = measured[-1]["tested"]
    predictions = join([(name, row["tested"]) for name, row in zip(names, measured, strict=True)])
    verdict = judge(predictions, names[-1], names[:-1], own.learned, probe)
    advice = next_steps(verdict, Seen.of_run(own.entry))
    return dataclasses.replace(verdict, advice=advice)


def _seen_before(entry: Any, args: argparse.Namespace) -> list[str]:
    """Whether the network was pretrained on what it is tested on, as far as is known."""
    division = getattr(args, "division", None)
    if division is None or not isinstance(entry, dict):
        return []
    data: dict[str, Any] = entry.get("data") or {}
    if data.get("folder") != str(division.listing.root):
        return []
    if data.get("split") == division.digest():
        return []
    return [
        "the network was pretrained, without labels, on images that are tested here. To measure "
        "it on images it has not seen, train with data.holdout=0.2"
    ]
