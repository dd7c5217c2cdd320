"""The number of CPU threads that is fastest here, found by timing the steps of the run itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

TRIAL_STEPS, TRIAL_SECONDS = 4, 0.4  # a number is timed for at least both
WATCH_STEPS, WATCH_SECONDS = 10, 2.0  # and afterwards, again and again
BETTER = 0.95  # fewer threads are taken where a step takes less than this share of the time
HOPELESS = 1.5  # times the best step: not timed any longer
SLOWER = 1.25  # times what a step took with fewer threads: time for another trial
# Seconds of steps until the next trial; doubled where one changed nothing.
FIRST_WAIT, LONGEST_WAIT = 20.0, 640.0
UPWARDS = 3.0  # times that wait, to try more threads again


@dataclass(frozen=True)
class Decision:
    """What a trial found.

    Attributes:
        threads: the number from now on.
        seconds: of a step, by number of threads.
        changed: the number is another than before the trial.
    """

    threads: int
    seconds: Mapping[int, float]
    changed: bool

    def describe(self) -> str:
        """One sentence."""
        order = sorted(self.seconds, key=lambda count: (count != self.threads, count))
        times = [f"{self.seconds[count]:.3g} s with {count}" for count in order]
        count = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{count}: a step takes {times[0]}, {', '.join(times[1:])}"


@dataclass
class _Window:
    """Consecutive steps."""

    steps: int
    least: float
    seconds: list[float] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.seconds) >= self.steps and sum(self.seconds) >= self.least

    @property
    def mean(self) -> float:
        """Without the slowest step, which may have waited for a file."""
        kept = sorted(self.seconds)[: max(len(self.seconds) - 1, 1)]
        return sum(kept) / len(kept)


class Pace:
    """Times steps with some numbers of threads, takes the fastest, and looks again when it changed.

    A climb over n, n/2, n/4, ..., 1: the next smaller and larger numbers are tried as long as that
    makes steps faster. A trial begins at the start of a run, when steps have become slower than
    fewer threads would make them, and from time to time where fewer than n are used.

    Args:
        most: threads that there may be.
        settled: what an earlier trial of this run found; None begins with one.

    Attributes:
        threads: for the next step.
    """

    def __init__(self, most: int, settled: int | None = None) -> None:
        self.ladder = [most]
        while self.ladder[-1] > 1:
            self.ladder.append(self.ladder[-1] // 2)
        known = settled in self.ladder
        self.threads = settled if known and settled is not None else most
        self._before = self.threads
        self._found: dict[int, float] = {}
        self._limit = math.inf
        self._wait, self._since = FIRST_WAIT, 0.0
        self._trying = len(self.ladder) > 1 and not known
        self._skip = 1  # the first step with another number makes its threads
        self._window = self._new_window()

    def step(self, seconds: float) -> Decision | None:
        """Count a step that took `seconds`. Returns the decision, if this step led to one."""
        if len(self.ladder) == 1:
            return None
        if self._skip:
            self._skip -= 1
            return None
        self._window.seconds.append(seconds)
        self._since += seconds
        if self._trying:
            return self._try()
        if self._window.full:
            self._watch()
        return None

    def _try(self) -> Decision | None:
        best = min(self._found.values(), default=math.inf)
        hopeless = len(self._window.seconds) > 1 and self._window.mean > HOPELESS * best
        if not self._window.full and not hopeless:
            return None
        self._found[self.threads] = self._window.mean
        following = self._untried()
        if following is None:
            return self._settle()
        self._use(following)
        return None

    def _best(self) -> int:
        best, *fewer = sorted(self._found, reverse=True)
        for count in fewer:
            if self._found[count] < BETTER * self._found[best]:
                best = count
        return best

    def _untried(self) -> int | None:
        """The number below or above those that are as good as the best, if it was not timed."""
        least = min(self._found.values())
        good = [self.ladder.index(n) for n, found in self._found.items() if BETTER * found <= least]
        near = self.ladder[max(good) + 1 : max(good) + 2]
        near += self.ladder[max(min(good) - 1, 0) : min(good)]
        return next((count for count in near if count not in self._found), None)

    def _settle(self) -> Decision:
        chosen = self._best()
        changed = chosen != self._before
        self._wait = FIRST_WAIT if changed else min(2 * self._wait, LONGEST_WAIT)
        fewer = [seconds for count, seconds in self._found.items() if count < chosen]
        self._limit = SLOWER * min(fewer, default=math.inf)
        decision = Decision(chosen, dict(self._found), changed)
        self._trying, self._since = False, 0.0
        self._use(chosen)
        return decision

    def _watch(self) -> None:
        """Begin another trial, if it is time for one."""
        mean = self._window.mean
        if self._limit == math.inf and self.threads > 1:  # resumed: nothing is known of fewer
            self._limit = HOPELESS * mean
        slow = mean > self._limit and self._since > self._wait
        idle = self.threads < self.ladder[0] and self._since > UPWARDS * self._wait
        self._window = self._new_window()
        if slow or idle:
            self._trying, self._before = True, self.threads
            self._found = {self.threads: mean}
            following = self._untried()
            assert following is not None, "a ladder of two numbers or more has a neighbour"
            self._use(following)

    def _use(self, count: int) -> None:
        self._skip = int(count != self.threads)
        self.threads = count
        self._window = self._new_window()

    def _new_window(self) -> _Window:
        if self._trying:
            return _Window(TRIAL_STEPS, TRIAL_SECONDS)
        return _Window(WATCH_STEPS, WATCH_SECONDS)
