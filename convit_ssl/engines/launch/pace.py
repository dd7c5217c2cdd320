"""The way to use CPU threads that is fastest here, found by timing the steps of the run itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

TRIAL_STEPS, TRIAL_SECONDS = 4, 0.4  # a number is timed for at least both
WATCH_STEPS, WATCH_SECONDS = 10, 2.0  # and afterwards, again and again
BETTER = 0.95  # fewer threads are taken where a step takes less than this share of the time
HOPELESS = 1.5  # times the best step: not timed any longer
SLOWER = 1.25  # times what a step took with fewer threads: time for another trial
# Seconds of steps until the next trial; doubled where one changed nothing.
FIRST_WAIT, LONGEST_WAIT = 20.0, 640.0
UPWARDS = 3.0  # times that wait, to try more threads again


class Way(NamedTuple):
    """How threads are used.

    Attributes:
        threads: how many.
        shares: each takes a share of the batch through the trunk; else all divide every operation.
    """

    threads: int
    shares: bool = False

    def __str__(self) -> str:
        return f"{self.threads} shares" if self.shares else str(self.threads)


@dataclass(frozen=True)
class Decision:
    """What a trial found.

    Attributes:
        way: from now on.
        seconds: of a step, by way.
        changed: the way is another than before the trial.
    """

    way: Way
    seconds: Mapping[Way, float]
    changed: bool

    def describe(self) -> str:
        """One sentence."""
        order = sorted(self.seconds, key=lambda way: (way != self.way, way))
        times = [f"{self.seconds[way]:.3g} s with {way}" for way in order]
        count = f"{self.way.threads} thread{'' if self.way.threads == 1 else 's'}"
        if self.way.shares:
            count += ", each with its share of the batch"
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

    A climb over n, n/2, n/4, ..., 1 threads, and over both ways to use them where `shares` allows
    both: what is next to the best is tried as long as that makes steps faster. A trial begins at
    the start of a run, when steps have become slower than fewer threads would make them, and from
    time to time where fewer than n are used.

    Args:
        most: threads that there may be.
        settled: what an earlier trial of this run found; None begins with one.
        shares: threads may take shares of the batch.

    Attributes:
        way: for the next step.
    """

    def __init__(self, most: int, settled: Way | None = None, shares: bool = False) -> None:
        self.ladder = [most]
        while self.ladder[-1] > 1:
            self.ladder.append(self.ladder[-1] // 2)
        self._shares = shares
        known = settled is not None and settled.threads in self.ladder
        self.way = self._allowed(*settled) if known and settled else self._allowed(most, True)
        self._before = self.way
        self._found: dict[Way, float] = {}
        self._limit = math.inf
        self._wait, self._since = FIRST_WAIT, 0.0
        self._trying = len(self.ladder) > 1 and not known
        self._skip = 1  # the first step of another way makes its threads
        self._window = self._new_window()

    @property
    def threads(self) -> int:
        """How many the next step uses."""
        return self.way.threads

    def _allowed(self, threads: int, shares: bool) -> Way:
        return Way(threads, shares and self._shares and threads > 1)

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
        self._found[self.way] = self._window.mean
        following = self._untried()
        if following is None:
            return self._settle()
        self._use(following)
        return None

    def _best(self) -> Way:
        order = sorted(self._found, reverse=True)  # many threads first, and of them shares
        best = order[0]
        for way in order[1:]:
            if self._found[way] < BETTER * self._found[best]:
                best = way
        return best

    def _untried(self) -> Way | None:
        """What is next to the ways that are as good as the best, if it was not timed."""
        least = min(self._found.values())
        good = sorted(way for way, found in self._found.items() if BETTER * found <= least)
        near = [self._allowed(way.threads, not way.shares) for way in good]
        for step in (1, -1):
            for way in good:
                place = self.ladder.index(way.threads) + step
                if 0 <= place < len(self.ladder):
                    # One thread is next to both ways of several.
                    both = (True, False) if way.threads == 1 else (way.shares,)
                    near += [self._allowed(self.ladder[place], shares) for shares in both]
        return next((way for way in near if way not in self._found), None)

    def _settle(self) -> Decision:
        chosen = self._best()
        changed = chosen != self._before
        self._wait = FIRST_WAIT if changed else min(2 * self._wait, LONGEST_WAIT)
        fewer = [found for way, found in self._found.items() if way.threads < chosen.threads]
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
            self._trying, self._before = True, self.way
            self._found = {self.way: mean}
            following = self._untried()
            assert following is not None, "a ladder of two numbers or more has a neighbour"
            self._use(following)

    def _use(self, way: Way) -> None:
        self._skip = int(way != self.way)
        self.way = way
        self._window = self._new_window()

    def _new_window(self) -> _Window:
        if self._trying:
            return _Window(TRIAL_STEPS, TRIAL_SECONDS)
        return _Window(WATCH_STEPS, WATCH_SECONDS)
