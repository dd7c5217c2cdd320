"""Who races in ``config=convit_auto``, for how long, and who is still in after each round.

Round 1 compares the methods, each with the settings that the small-collection rule gives it. Round
2 trains twice as long: the two best, and the best with other crops and patches. Each trial is a
whole short run with its own schedule, and ends where the race's share of the planned training is
used up. Source of the idea: successive halving (arXiv:1502.07943).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convit_ssl.methods import get_method
from convit_ssl.methods.scale_tables import FEW_TOKENS_PATCHES
from convit_ssl.schema_resolved import Resolved

FINALISTS = 4
LONGER = 2  # how much longer round 2 is
LEAST_SECONDS = 3.0  # of a trial; below, starting it takes longer than training
LEAST_EPOCHS = 2  # of a trial; after one, methods are hardly under way
TOLERANCE = 1.1  # whole epochs may take the race a little over its share
FEWEST_IMAGES = 40
# The smallest share of the image in a crop, beside the method's own.
LARGE_CROPS, SMALL_CROPS, BOUNDARY = 0.4, 0.15, 0.3


@dataclass(frozen=True)
class Candidate:
    """A method with settings of its own.

    Attributes:
        method: its name.
        settings: options as they are written on a command line.
    """

    method: str
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For the screen and the record."""
        return " ".join((self.method, *self.settings))


@dataclass(frozen=True)
class Timetable:
    """What fits into a race's share of the planned training.

    Attributes:
        methods: in round 1; 0 without a first round.
        finalists: in round 2, at most; 0 without a second round.
        first: epochs of a trial of round 1, as a share of those planned times ``images / part``.
        left_out: what was given up for want of time, in words.
    """

    methods: int
    finalists: int
    first: float
    left_out: str = ""

    def epochs(self, planned: int, images: int, part: int, second: bool) -> int:
        """Epochs of a trial.

        Args:
            planned: epochs of the candidate's whole training.
            images: that it trains on.
            part: images that a trial trains on.
            second: in round 2.
        """
        return whole_epochs(self.first * (LONGER if second else 1), planned, images, part)


def whole_epochs(share: float, planned: int, images: int, part: int) -> int:
    """Epochs on a part of the images that show as many images as a share of the training."""
    return max(LEAST_EPOCHS, round(share * planned * images / part))


def timetable(
    methods: int, planned: int, images: int, part: int, share: float,
    seconds: float | None = None, settings: bool = True,
) -> Timetable | None:  # fmt: skip
    """The largest race that fits; None where none does.

    Args:
        methods: that are to be compared.
        planned: epochs of the whole training.
        images: that it trains on.
        part: images that a trial trains on.
        share: of the training that the race may take.
        seconds: of the whole training, where they can be estimated.
        settings: whether settings are raced, too.
    """
    finals = [n for n in (FINALISTS, FINALISTS - 1, 2, 0) if n <= 2 or settings]
    tried = [(count, final) for count in range(methods, 1, -1) for final in finals]
    if methods == 1 and settings:
        tried = [(0, final) for final in (FINALISTS - 1, 2)]
    for count, final in tried:
        parts = count + LONGER * final
        first = share / parts

        def cost(times: int, first: float = first) -> float:
            whole = whole_epochs(first * times, planned, images, part)
            return whole * part / (planned * images)

        total = (count * cost(1) if count else 0.0) + (final * cost(LONGER) if final else 0.0)
        shortest = cost(1 if count else LONGER)
        long_enough = seconds is None or shortest * seconds >= LEAST_SECONDS
        if total <= TOLERANCE * share and long_enough:
            return Timetable(count, final, first, _left_out(methods, count, final, settings))
    return None


def _left_out(methods: int, count: int, final: int, settings: bool) -> str:
    words = []
    if count and count < methods:
        words.append(f"the last {methods - count} of auto.methods")
    if not final:
        words.append("other crops and patches" if settings else "a second round")
    return f"too short a training for {' and '.join(words)}" if words else ""


def finalists(
    ranked: Sequence[str], options: Resolved, explicit: frozenset[str], most: int,
    settings: bool = True,
) -> list[Candidate]:  # fmt: skip
    """Who takes part in round 2: the best, the second, and the best with other settings.

    Args:
        ranked: methods, the best first.
        options: of the best method's whole training.
        explicit: keys that the user set, which stay.
        most: candidates.
        settings: whether there are other settings at all.
    """
    best = ranked[0]
    found = [Candidate(name) for name in ranked[:2]]
    if settings:
        crops, patches = _other_crops(options, explicit), _smaller_patch(options, explicit)
        found += [Candidate(best, (setting,)) for setting in (crops, patches) if setting]
    return found[:most] if len(found[:most]) > 1 else []


def _other_crops(options: Resolved, explicit: frozenset[str]) -> str | None:
    keys = {"crops.global_scale", "crops.physical", "augmentation.min_crop_scale"}
    if explicit & keys or get_method(options.method.name).hides_patches:
        return None
    smallest = options.crops.global_scale[0]
    other = LARGE_CROPS if smallest < BOUNDARY else SMALL_CROPS
    return f"crops.global_scale=[{other:g},1.0]"


def _smaller_patch(options: Resolved, explicit: frozenset[str]) -> str | None:
    """Where the length follows from the machine: so that the training takes no longer."""
    budget = options.derived.budget
    fixed = {"trunk.patch_size", "optim.epochs", "crops.global_size"} & explicit
    if budget is None or not budget["few_tokens"] or options.weights or fixed:
        return None
    patch = options.trunk.patch_size
    if patch is None:
        return None
    smaller = next((size for size in FEW_TOKENS_PATCHES if 2 * size <= patch), None)
    return None if smaller is None else f"trunk.patch_size={smaller}"
