"""The race of ``config=convit_auto``: trials in rounds, in this process."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.engines.auto import record as auto_record
from convit_ssl.engines.auto import report as auto_report
from convit_ssl.engines.auto.judge import Judge, Score
from convit_ssl.engines.auto.record import Progress, Trial
from convit_ssl.engines.auto.schedule import (
    FEWEST_IMAGES,
    Candidate,
    Timetable,
    finalists,
    timetable,
)
from convit_ssl.engines.auto.trial import (
    StoppedTrial,
    compose_candidate,
    learned_rows,
    train_trial,
)
from convit_ssl.engines.auto.words import candidate_words
from convit_ssl.engines.callbacks.console import Screen
from convit_ssl.engines.checkpoints.lock import lock_run
from convit_ssl.engines.checkpoints.run_folder import forget
from convit_ssl.engines.options.compose import Composed
from convit_ssl.engines.options.plan import Plan, make_plan
from convit_ssl.engines.options.scaling import planned_seconds
from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import hardware, now, versions
from convit_ssl.runs import RunFolder


def question_of(composed: Composed, first: Plan) -> dict[str, Any]:
    """What a race depends on: the images, and the command without where it runs."""
    words = [word for word in composed.arguments if not word.startswith("run.")]
    return {"images": first.facts["digest"], "command": sorted(words)}


class Race:
    """A race in this process.

    Args:
        composed: of ``config=convit_auto``.
        plans: method -> its whole training.
        problems: method -> why it cannot be trained.
        folder: of the run.
    """

    def __init__(
        self, composed: Composed, plans: dict[str, Plan], problems: dict[str, str], folder: Path
    ) -> None:
        self.composed, self.plans, self.problems, self.folder = composed, plans, problems, folder
        self.first = next(iter(plans.values()))
        self.auto = composed.tree.auto
        self.screen = Screen()
        self.began = time.perf_counter()
        self.scores: dict[tuple[str, int], Score] = {}
        self.judge: Judge
        self.progress: Progress

    def run(self, afresh: bool) -> dict[str, Any] | int:
        """All rounds; returns what race.json holds, or the exit code of a signal."""
        from convit_ssl.engines.options.write import make_folder

        make_folder(self.folder)
        with lock_run(self.folder):
            if afresh:
                forget(self.folder)
                shutil.rmtree(RunFolder(self.folder).trials, ignore_errors=True)
            question = question_of(self.composed, self.first)
            race = auto_record.decided(self.folder)  # another command may have raced meanwhile
            if race is not None and race.get("question") == question:
                return race
            self.progress = Progress(self.folder, question)
            if self.progress.dropped:
                self._say("race: the images or options changed since the last start; starting over")
            for method, problem in self.problems.items():
                self._say(f"race: {method} is left out: {problem}")
            try:
                found = self._rounds()
            except StoppedTrial as stop:
                self._say("race: stopped; the trials that ended are kept, and the same command "
                          "resumes the race")  # fmt: skip
                return stop.exit_code
            found = {
                "format": auto_record.FORMAT,
                "question": question,
                **found,
                "left_out": self.problems,
                "seconds": round(time.perf_counter() - self.began, 1),
                "hardware": hardware(),
                "versions": versions(),
                "time": now(),
            }
            auto_record.keep_decision(self.folder, found)
        self._say(f"race: taking {found['decision']['reason']}")
        for note in found["decision"]["notes"]:
            self._say(f"race: {note}")
        return found

    def _rounds(self) -> dict[str, Any]:
        images = int(self.first.facts["images"])
        if images < FEWEST_IMAGES:
            return self._without(f"{images} images are too few to hold some out of train")
        self.judge = Judge(self.first, str(self.auto.judge))
        rows = learned_rows(self.judge.learned)
        table = self._timetable(images, len(rows))
        if table is None:
            return self._without(
                f"the planned training of {self.first.settings.optim.epochs} epochs is too "
                f"short for a race in {percent_of(self.auto.share)} of it"
            )
        self._say(
            f"race: {', '.join(list(self.plans)[: max(table.methods, 1)])}, judged by "
            f"{self.judge.name} on {self.judge.asked:,} images held out of train "
            f"({self.judge.why}), in at most about {percent_of(self.auto.share)} of the "
            f"planned training"
        )
        if table.left_out:
            self._say(f"race: {table.left_out}")
        ranked = list(self.plans)
        trials: list[Trial] = []
        if table.methods:
            entered = [Candidate(name) for name in ranked[: table.methods]]
            trials = self._round(1, entered, table, rows)
            ranked = [one.method for one in trials]
        if table.finalists:
            best = self.plans[ranked[0]]
            last = finalists(
                ranked, best.settings, self.composed.explicit, table.finalists,
                bool(self.auto.settings),
            )  # fmt: skip
            if last:
                trials = self._round(2, last, table, rows)
        if not trials:
            return self._without("there is one candidate, and its settings are given")
        return self._decision(trials)

    def _timetable(self, images: int, part: int) -> Timetable | None:
        epochs = self.first.settings.optim.epochs
        share, settings = float(self.auto.share), bool(self.auto.settings)
        seconds = planned_seconds(self.first)
        return timetable(len(self.plans), epochs, images, part, share, seconds, settings)

    def _round(
        self, number: int, entered: Sequence[Candidate], table: Timetable, rows: Any
    ) -> list[Trial]:
        """The trials of a round that gave a figure, the best first.

        Raises:
            UserError: none did; with the first one's reason.
        """
        trials = [self._trial(number, one, table, rows) for one in entered]
        scored = [one for one in trials if one.score is not None]
        if not scored:
            raise UserError(f"no candidate of the race could be trained: {trials[0].problem}")
        return sorted(scored, key=lambda one: -(one.score or 0.0))  # stable: preferred ones first

    def _trial(self, number: int, one: Candidate, table: Timetable, rows: Any) -> Trial:
        known = self.progress.find(one.name, number)
        if known is not None:
            self._keep(known)
            self._say(f"{auto_report.trial_line(known)} (kept)")
            return known
        trial = Trial(one.name, one.method, list(one.settings), number, 0)
        if not self.progress.begin(one.name, number):
            trial.problem = "it ended twice without a figure, as for want of memory"
        else:
            self._train(trial, table, rows)
        self.progress.add(trial)
        self._keep(trial)
        self._say(auto_report.trial_line(trial))
        return trial

    def _train(self, trial: Trial, table: Timetable, rows: Any) -> None:
        place = RunFolder(self.folder).trials / "trial"
        try:
            whole = self._whole(trial)
            planned, images = whole.settings.optim.epochs, int(whole.facts["images"])
            trial.epochs = table.epochs(planned, images, len(rows), trial.round == 2)
            if self._repeats(trial):
                return
            network, cost = train_trial(
                self.composed, whole, trial.settings, rows, trial.epochs, place
            )
            score = self.judge.score(whole, network)
        except UserError as error:
            trial.problem = str(error)
            return
        except (StoppedTrial, SystemExit, KeyboardInterrupt):
            self.progress.stopped(trial.name, trial.round)
            raise
        trial.score = score.value
        trial.core_seconds, trial.seconds = round(cost.core_seconds, 2), round(cost.seconds, 2)
        trial.hits, trial.truth = score.hits.astype(int).tolist(), score.truth.tolist()

    def _repeats(self, trial: Trial) -> bool:
        """Whether an earlier round had the very same trial, whose figure is taken."""
        same = self.progress.find(trial.name, 1)
        if same is None or same.epochs != trial.epochs or trial.round == 1:
            return False
        known = {**dataclasses.asdict(same), "round": trial.round}
        for name, value in known.items():
            setattr(trial, name, value)
        return True

    def _whole(self, trial: Trial) -> Plan:
        if not trial.settings:
            return self.plans[trial.method]
        return make_plan(compose_candidate(self.composed, trial.method, trial.settings))

    def _keep(self, trial: Trial) -> None:
        if trial.score is not None:
            hits, truth = np.array(trial.hits, bool), np.array(trial.truth)
            self.scores[trial.name, trial.round] = Score(trial.score, hits, truth)

    def _decision(self, ranked: Sequence[Trial]) -> dict[str, Any]:
        best, judge = ranked[0], self.judge
        second = ranked[1] if len(ranked) > 1 else None
        difference = None
        if second is not None:
            pair = (self.scores[best.name, best.round], self.scores[second.name, second.round])
            difference = judge.difference(*pair)
        references = judge.references(self._whole(best))
        assert best.score is not None
        notes = auto_report.against_references(best.score, references)
        found = self._record(
            best.method, best.settings, auto_report.reason_of(ranked, judge, second, difference),
            notes,
        )  # fmt: skip
        return {
            **found,
            "judge": {"by": judge.by, "name": judge.name, "why": judge.why},
            "held_out": judge.asked,
            "learned": len(learned_rows(judge.learned)),
            "references": {name: score.value for name, score in references.items()},
            "difference": None if difference is None else difference.as_dict(),
        }

    def _without(self, why: str) -> dict[str, Any]:
        """No race: the first candidate that can be trained."""
        method = self.first.settings.method.name
        return self._record(
            method, [], f"{method}, the first of auto.methods, without a race: {why}"
        )

    def _record(
        self, method: str, settings: Sequence[str], reason: str, notes: Sequence[str] = ()
    ) -> dict[str, Any]:
        trials = [_shown(one) for one in self.progress.trials]
        command = candidate_words(self.composed.arguments, method, settings)
        spent = sum(one.core_seconds for one in self.progress.trials)
        return {
            "decision": {
                "method": method,
                "settings": [*settings],
                "reason": reason,
                "notes": [*notes],
                "core_seconds": round(spent, 2),
            },
            "command": ["convit-ssl", "train", *command],
            "trials": trials,
        }

    def _say(self, text: str) -> None:
        self.screen.line(text)


def _shown(trial: Trial) -> dict[str, Any]:
    """A trial for race.json, without each image's answer."""
    found = dataclasses.asdict(trial)
    return {key: value for key, value in found.items() if key not in ("hits", "truth")}


def percent_of(share: float) -> str:
    """A share in whole percent."""
    return f"{100 * share:.0f} %"
