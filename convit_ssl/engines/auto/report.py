"""What a race says: its lines on the screen, and the reason for what it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convit_ssl.engines.auto.judge import Judge, Score
from convit_ssl.engines.auto.record import Trial
from convit_ssl.engines.options.plan import Plan
from convit_ssl.methods import Choice


def percent(value: float) -> str:
    """A share in percent, with a digit."""
    return f"{100 * value:.1f}"


def trial_line(trial: Trial) -> str:
    """A line for a trial that is over."""
    if trial.score is None:
        return f"race, round {trial.round}: {trial.name}: left out: {trial.problem}"
    epochs = f"{trial.epochs} epoch{'' if trial.epochs == 1 else 's'}"
    return (
        f"race, round {trial.round}: {trial.name}: {percent(trial.score)} after {epochs}, "
        f"{minutes(trial.core_seconds)}"
    )


def minutes(core_seconds: float) -> str:
    """Processor time in words."""
    return f"{core_seconds / 60:.2g} core-minutes"


def reason_of(ranked: Sequence[Trial], judge: Judge, second: Trial | None, difference: Any) -> str:
    """Why the winner was taken: its figure, those of the others, and how sure that is.

    Args:
        ranked: the trials of the last round, the best first.
        judge: who scored them.
        second: the best trial of another candidate.
        difference: the paired difference of the two; None where there is none.
    """
    best = ranked[0]
    assert best.score is not None
    images = f"{judge.asked:,} images held out of train"
    what = f"{judge.name} {percent(best.score)} of {images}"
    text = f"{best.name}: {what}, after {minutes(best.core_seconds)}"
    others = [f"{one.name} {percent(one.score)}" for one in ranked[1:] if one.score is not None]
    text += f"; {', '.join(others)}" if others else ""
    if second is not None and difference is not None:
        if difference.value <= 0:
            return f"{text}. Level with {second.name}; the one that was named first was taken"
        text += f". Ahead of {second.name} by {difference.in_points()}"
        if not difference.is_better:
            text += ", which does not show a difference; the higher figure was taken"
    return text


def against_references(best: float, references: Mapping[str, Score]) -> list[str]:
    """What a reader should know where the winner is not ahead of doing nothing."""
    return [
        f"after so short a trial the winner is not ahead of {name}: {percent(best)} and "
        f"{percent(found.value)}"
        for name, found in references.items()
        if best <= found.value
    ]


def adopt(plan: Plan, race: Mapping[str, Any]) -> None:
    """Write a race's decision into the plan of the run: reasons, configuration, checkpoints."""
    decision = race["decision"]
    plan.race = dict(race)
    plan.options["derived"]["race"] = dict(decision)
    vars(plan).pop("settings", None)  # made anew, with the decision
    chosen = {"method": Choice(decision["method"], decision["reason"])}
    for setting in decision["settings"]:
        key, _, value = setting.partition("=")
        chosen[key] = Choice(value, "chosen by the race, see method")
    plan.choices = {**chosen, **plan.choices}
