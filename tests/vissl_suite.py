"""VISSL's own tests on the compatibility layer, counted.

    python tests/vissl_suite.py /path/to/vissl-0.1.6 --keep outcomes.jsonl \\
        --out results/vissl_suite_cpu

The folder is an unpacked source release of VISSL v0.1.6 (tests are not in its wheel); it stays
outside this project. The tests run against the installed `vissl` package, on a CPU, as they are.
Every test that does not pass is printed with its reason: what it asks for and is not here, or the
error. A test that asks for a GPU returns at once without one, which pytest counts as passed; here
it is counted by itself, as one that did nothing.

The suite takes twenty minutes to two hours of one core. Ctrl-C ends the run and counts what was
run. With ``--keep FILE``, the outcome of each test is written as it ends, and the same command
skips the tests in the file: an interrupted run resumes, and several parts (``-k``) add up to one
count.
The exit code is 1 where a test failed for no reason that this file knows.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import fnmatch
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from convit_ssl import compat  # noqa: E402

compat.install()  # at import, so that processes that the tests start have it as well

TESTS = 1501  # of the release
EXPECTED: dict[str, str] = {}  # pattern of a test's name -> why it cannot pass


NOTHING = "did nothing"  # an outcome beside pytest's


@dataclass
class Outcome:
    """What became of a test.

    Attributes:
        name: pytest's name of it.
        what: passed, failed, skipped, or `NOTHING`.
        reason: why it did not pass; empty where it did.
        seconds: that it took, of the clock.
        commit: of this project.
    """

    name: str
    what: str
    reason: str = ""
    seconds: float = 0.0
    commit: str = ""


class Count:
    """Plugin for pytest: the outcome of each test.

    Args:
        commit: of this project.
        keep: outcomes are read from this file and added to it.
        limit: seconds after which a test fails; 0 for none.
    """

    def __init__(self, commit: str = "", keep: Path | None = None, limit: float = 0.0) -> None:
        self.collected = 0
        self.commit, self.keep, self.limit = commit, keep, limit
        self.outcomes: dict[str, Outcome] = {}
        self._idle: dict[str, str] = {}
        if keep is not None and keep.exists():
            lines = map(json.loads, keep.read_text().splitlines())
            self.outcomes = {line["name"]: Outcome(**line) for line in lines}

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """Count them all; leave out those whose outcome is known."""
        self.collected = len(items)
        self._idle = {item.nodeid: why for item in items if (why := why_nothing(item.function))}
        known = [item for item in items if item.nodeid in self.outcomes]
        items[:] = [item for item in items if item.nodeid not in self.outcomes]
        config.hook.pytest_deselected(items=known)

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be imported hides its tests."""
        if report.failed:
            reason = "not collected: " + last_line(report.longreprtext)
            self.outcomes[report.nodeid] = Outcome(report.nodeid, "failed", reason)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        """A test that takes too long fails."""
        with limited(self.limit):
            return (yield)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """The worst of a test's three phases counts."""
        name = report.nodeid
        found = self.outcomes.setdefault(name, Outcome(name, "passed", commit=self.commit))
        found.seconds = round(found.seconds + report.duration, 2)
        if report.failed or (report.skipped and found.what != "failed"):
            text = report.longrepr[2] if report.skipped else last_line(report.longreprtext)
            found.what, found.reason = report.outcome, text.removeprefix("Skipped: ")
        elif found.what == "passed" and name in self._idle:
            found.what, found.reason = NOTHING, self._idle[name]
        if report.when == "teardown" and self.keep is not None:
            with open(self.keep, "a") as file:
                file.write(json.dumps(asdict(found)) + "\n")


def why_nothing(test: Any) -> str:
    """What a test asks for that is not here, so that VISSL's decorator returns at once; or ""."""
    import torch

    while test is not None:
        names = test.__code__.co_freevars
        if "gpu_count" in names:
            cell = test.__closure__[names.index("gpu_count")]
            if torch.cuda.device_count() < cell.cell_contents:
                return f"asks for {cell.cell_contents} GPU(s)"
        if "is_augly_available" in test.__code__.co_names:
            from vissl.utils.misc import is_augly_available

            if not is_augly_available():
                return "asks for augly"
        test = getattr(test, "__wrapped__", None)
    return ""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds; never with 0."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds:g} s, the limit given")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def last_line(text: str) -> str:
    """The error itself, in a line of moderate length."""
    errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (errors or text.splitlines() or [""])[0][:200]


def run(folder: Path, only: str | None, count: Count) -> None:
    """Run the tests of a release, in its folder.

    Args:
        folder: of the release, with ``tests/``.
        only: an expression for pytest's ``-k``.
        count: takes the outcomes.
    """
    os.chdir(folder)
    sys.path.insert(0, str(folder / "tests"))  # they say `from utils import`
    words = ["tests", "-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short"]
    words += ["-c", os.devnull, f"--rootdir={folder}", "-o", "console_output_style=count"]
    words += ["-k", only] if only else []
    pytest.main(words, plugins=[count])


def grouped(count: Count, outcome: str) -> dict[str, list[str]]:
    """Tests of an outcome by reason, the commonest first."""
    found = collections.defaultdict(list)
    for name, one in count.outcomes.items():
        if one.what == outcome:
            found[one.reason].append(name)
    return dict(sorted(found.items(), key=lambda pair: -len(pair[1])))


def why(name: str) -> str | None:
    """The known reason of a failure."""
    patterns = (pattern for pattern in EXPECTED if fnmatch.fnmatch(name, pattern))
    return next((EXPECTED[pattern] for pattern in patterns), None)


def numbers(count: Count) -> dict[str, int]:
    """How many tests came to which end."""
    return dict(collections.Counter(one.what for one in count.outcomes.values()))


def markdown(count: Count, about: dict[str, Any]) -> str:
    """The page: counts, every test that did not pass, and the slowest ones."""
    number = collections.Counter(numbers(count))
    lines = [
        "# VISSL's own tests on the compatibility layer",
        "",
        f"`{about['command']}`, {about['date']}, commit {about['commit']}.",
        "",
        f"{about['hardware']['cpu']}, {about['hardware']['cores']} cores, no GPU; Python "
        f"{about['versions']['python']}, torch {about['versions']['torch']}, vissl "
        f"{about['versions']['vissl']}. {about['seconds']:.0f} s for all tests.",
        "",
        f"**{number['passed']:,} of {count.collected:,} pass**, {number['failed']} fail, "
        f"{number[NOTHING]} did nothing for want of what they ask for (pytest counts them as "
        f"passed), {number['skipped']} skip themselves, {count.collected - number.total()} were "
        f"not run. The release has {TESTS:,} tests.",
    ]
    titles = ("failed", "Failed"), (NOTHING, "Did nothing"), ("skipped", "Skipped themselves")
    for outcome, title in titles:
        groups = grouped(count, outcome)
        if groups:
            lines += ["", f"## {title}", "", "| tests | reason |", "|---|---|"]
            for reason, names in groups.items():
                known = why(names[0])
                named = ", ".join(f"`{name.rpartition('::')[2]}`" for name in names)
                text = f"{known} ({reason})" if known else reason
                lines.append(f"| {len(names)}: {named} | {text.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def record(count: Count, about: dict[str, Any], stem: Path) -> None:
    """Write the result and its page to a folder."""
    from convit_ssl.evaluation.results import record_folder, write_json

    ended = count.outcomes.values()
    bad = {one.name: one.reason for one in ended if one.what not in ("passed", NOTHING)}
    idle = {one.name: one.reason for one in ended if one.what == NOTHING}
    slow = sorted(ended, key=lambda one: -one.seconds)[:20]
    slowest = {one.name: one.seconds for one in slow}
    found = {"counts": numbers(count), "not_passed": bad, "did_nothing": idle, "slowest": slowest}
    place = record_folder(stem)
    write_json({**about, **found}, place / "result.json")
    (place / "README.md").write_text(markdown(count, about))


def main() -> int:
    """Run, print and record; 1 where a test failed for no known reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="unpacked source release of VISSL v0.1.6")
    parser.add_argument("-k", dest="only", help="only some of the tests, as pytest's -k")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="resume from this file")
    parser.add_argument("--limit", type=float, default=0.0, help="seconds a test may take")
    parser.add_argument("--out", metavar="results/NAME", help="write to the folder NAME_<date>")
    args = parser.parse_args()
    if not (args.folder / "tests" / "test_configs.py").is_file():
        parser.error(f"{args.folder} holds no tests/test_configs.py; give it a source release")
    out = Path(args.out).absolute() if args.out else None

    from convit_ssl.evaluation.results import commit, hardware, versions

    count = Count(commit(), args.keep.absolute() if args.keep else None, args.limit)
    run(args.folder.resolve(), args.only, count)
    date = time.strftime("%Y-%m-%d", time.gmtime())
    ended = list(count.outcomes.values())
    about = {
        "command": "python tests/vissl_suite.py FOLDER" + (f" -k {args.only}" * bool(args.only)),
        "commit": ", ".join(sorted({one.commit for one in ended if one.commit})),
        "versions": versions(), "hardware": hardware(), "date": date,
        "seconds": round(sum(one.seconds for one in ended), 1),
    }  # fmt: skip
    print(markdown(count, about))
    if out:
        record(count, about, Path(f"{out}_{date}"))
    unknown = [one.name for one in ended if one.what == "failed" and not why(one.name)]
    return int(bool(unknown) or not ended)


if __name__ == "__main__":
    sys.exit(main())
