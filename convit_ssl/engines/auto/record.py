"""What a race wrote down: its trials so far, or its decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convit_ssl.engines.options.first_start import read_options
from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import write_json
from convit_ssl.reading import read_json
from convit_ssl.runs import RunFolder

FORMAT = 1
MOST_STARTS = 2  # of a trial whose process dies without an error message, as by SIGKILL


@dataclass
class Trial:
    """A trial that is over.

    Attributes:
        name: of the candidate.
        method: of the candidate.
        settings: of the candidate.
        round: 1 or 2.
        epochs: that it trained for.
        score: 0..1; None where it failed.
        core_seconds: processor time; 0 where it failed.
        seconds: by the clock.
        hits: of each held-out image, 1 where it was right.
        truth: classes of these images.
        problem: why it failed; empty otherwise.
    """

    name: str
    method: str
    settings: list[str]
    round: int
    epochs: int
    score: float | None = None
    core_seconds: float = 0.0
    seconds: float = 0.0
    hits: list[int] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)
    problem: str = ""


class Progress:
    """The trials of a race that is under way, kept so that a killed race resumes.

    Args:
        folder: of the run.
        question: what the race depends on; trials of another question are dropped.
    """

    def __init__(self, folder: Path, question: Mapping[str, Any]) -> None:
        self.path = RunFolder(folder).trials / "trials.json"
        self.question = dict(question)
        self.trials: list[Trial] = []
        self.begun: dict[str, int] = {}
        self.dropped = False
        found = _read(self.path)
        if found is None:
            return
        if found.get("question") != self.question:
            self.dropped = True
            return
        try:
            self.trials = [Trial(**entry) for entry in found["trials"]]
            self.begun = {str(name): int(times) for name, times in found["begun"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            self.trials, self.begun, self.dropped = [], {}, True

    def find(self, name: str, number: int) -> Trial | None:
        """The trial of a candidate in a round, if it is over."""
        found = (one for one in self.trials if (one.name, one.round) == (name, number))
        return next(found, None)

    def begin(self, name: str, number: int) -> bool:
        """Note that a trial begins; False if its process has died too often."""
        key = f"{number} {name}"
        if self.begun.get(key, 0) >= MOST_STARTS:
            return False
        self.begun[key] = self.begun.get(key, 0) + 1
        self._write()
        return True

    def stopped(self, name: str, number: int) -> None:
        """A trial was stopped in an orderly way, which says nothing against it."""
        self.begun.pop(f"{number} {name}", None)
        self._write()

    def add(self, trial: Trial) -> None:
        """Keep a trial that is over."""
        self.trials.append(trial)
        self.begun.pop(f"{trial.round} {trial.name}", None)
        self._write()

    def _write(self) -> None:
        trials = [dataclasses.asdict(one) for one in self.trials]
        found = {"question": self.question, "trials": trials, "begun": self.begun}
        write_json(found, self.path)


def decided(folder: Path) -> dict[str, Any] | None:
    """The race of a run that has its decision; None without one.

    The run's configuration has the decision as well, for a folder whose race.json was lost.
    """
    found = _read(RunFolder(folder).race) or _read(RunFolder(folder).trials / "decision.json")
    if found is not None and _is_decision(found.get("decision")):
        return found
    options = read_options(folder)
    kept = (options.get("derived") or {}).get("race") if options else None
    return {"format": FORMAT, "decision": kept} if _is_decision(kept) else None


def keep_decision(folder: Path, race: Mapping[str, Any]) -> None:
    """Write a decision where the run finds it until it has begun."""
    write_json(race, RunFolder(folder).trials / "decision.json")


def _is_decision(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and isinstance(found.get("method"), str)
        and isinstance(found.get("settings"), Sequence)
        and all(isinstance(one, str) and "=" in one for one in found["settings"])
        and isinstance(found.get("reason"), str)
    )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except UserError:
        return None
    return found if isinstance(found, dict) else None
