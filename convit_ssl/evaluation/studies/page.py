"""The page of a study: its tables, what was run, and on what."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convit_ssl.evaluation.results import commit, hardware, versions
from convit_ssl.evaluation.studies.design import WARMUP, Settings, Study
from convit_ssl.evaluation.studies.runner import State


def describe_settings(settings: Settings) -> dict[str, Any]:
    """For result files."""
    return {
        "data": settings.data,
        "epochs_at_100_percent": settings.epochs,
        "epochs_scaled_by_1_over_fraction": settings.scale_epochs,
        "warmup_share": WARMUP,
        "batch_size": settings.batch_size,
        "images_per_class_at_100_percent": settings.images_per_class or "all",
        "run": settings.run,
        "overrides": list(settings.overrides),
    }


def surroundings() -> dict[str, Any]:
    """What a result depends on and nobody chose: commit, versions, machine, command."""
    return {
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "command": _command(sys.argv),
    }


def _command(words: Sequence[str]) -> list[str]:
    """The command line, without the note, which the page begins with."""
    name = "convit-ssl" if words[0].endswith("main.py") else Path(words[0]).name
    kept = [w for w, before in zip(words[1:], words, strict=False) if before != "--note"]
    return [name, *(word for word in kept if word != "--note")]


def data_facts(state: State) -> dict[str, Any]:
    """A run's images in numbers, with their hash; not where they lie on this machine."""
    found = state.result.get("data") or {}
    return {key: value for key, value in found.items() if key != "folder"}


def facts(states: Sequence[State], study: Study, about: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: command, machine, time of a run, settings of each experiment."""
    done = [state for state in states if state.status == "done"]
    seconds = [float(s.result["seconds"]) for s in done if s.result.get("seconds")]
    machine = about["hardware"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    lines = [
        "## How it was made",
        "",
        f"- Command: `{shlex.join(about['command'])}`",
        f"- Machine: {machine['cpu']}, {machine['cores']} core(s) of it, {gpus}; "
        f"torch {about['versions'].get('torch', '?')}, commit {about['commit'] or 'unknown'}.",
        f"- Runs: {len(done)} of {len(states)} done"
        + (
            f", {statistics.median(seconds):.0f} s each in the median, "
            f"{sum(seconds) / 60:.0f} minutes in all."
            if seconds
            else "."
        ),
    ]
    shown: dict[str, str] = {}
    for run in study.runs:
        own = [w for w in run.overrides() if not w.startswith(("config=", "trunk=", "seed="))]
        shown.setdefault(f"{run.arm.config}, {100 * run.fraction:g} %", " ".join(own))
    lines += [f"- {name}, seed {study.runs[0].seed}: `{words}`" for name, words in shown.items()]
    return [*lines, ""]


def seeds_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: the figure of every single run, in %."""
    lines = ["## Every run", "", "| run | seed | top-1 | s | images/s |", "|---|---|---|---|---|"]
    for row in rows:
        share = f", {100 * row['fraction']:g} %" if "fraction" in row else ""
        speed = row.get("images_per_s")
        lines.append(
            f"| {row['name']}{share} | {row['seed']} | {100 * row['accuracy']:.2f} | "
            f"{row.get('seconds') or 0:.0f} | {'' if speed is None else f'{speed:,.0f}'} |"
        )
    return [*lines, ""]
