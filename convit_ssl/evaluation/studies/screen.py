"""The one table of a running study, or a line per run without a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from convit_ssl.evaluation.studies.design import Study
from convit_ssl.evaluation.studies.report import progress_table
from convit_ssl.evaluation.studies.runner import State, Watch
from convit_ssl.starting import own_progress, own_progress_ended, spoke


@contextmanager
def watching(study: Study) -> Iterator[Watch]:
    """A callback for `run_study` that shows where all runs stand."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.live import Live

    from convit_ssl.terminal import Terminal

    own_progress("study")
    with Live(console=Terminal(stderr=True), auto_refresh=False) as live:
        yield lambda states: live.update(progress_table(study, states), refresh=True)
    spoke()
    own_progress_ended("study")


def _lines() -> Watch:
    seen: dict[str, str] = {}

    def watch(states: Sequence[State]) -> None:
        for number, state in enumerate(states, 1):
            if state.status == "waiting" or seen.get(state.run.name) == state.status:
                continue
            seen[state.run.name] = state.status
            accuracy = state.result.get("accuracy")
            figure = "" if accuracy is None else f" {100 * accuracy:.1f} %"
            print(
                f"[{number}/{len(states)}] {state.run.name}: {state.status}{figure}"
                f"{': ' + state.message if state.message else ''}",
                file=sys.stderr,
                flush=True,
            )

    return watch
