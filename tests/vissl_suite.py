"""VISSL's own tests on the compatibility layer, counted.

    python tests/vissl_suite.py /path/to/vissl-0.1.6 --out results/vissl_suite_cpu

The folder is an unpacked source release of VISSL v0.1.6 (tests are not in its wheel); it stays
outside this project. The tests run against the installed `vissl` package, on a CPU, as they are.
Every test that does not pass is printed with its reason: what it asks for and is not here, or the
error. Ctrl-C ends the run and counts what was run. The exit code is 1 where a test failed for no
reason that this file knows.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from convit_ssl import compat  # noqa: E402

compat.install()  # at import, so that processes that the tests start have it as well

TESTS = 1501  # of the release
EXPECTED: dict[str, str] = {}  # pattern of a test's name -> why it cannot pass


class Count:
    """Plugin for pytest: the outcome of each test."""

    def __init__(self) -> None:
        self.collected = 0
        self.outcome: dict[str, str] = {}
        self.reason: dict[str, str] = {}

    def pytest_collection_finish(self, session: Any) -> None:
        """How many there are."""
        self.collected = len(session.items)

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be imported hides its tests."""
        if report.failed:
            self.outcome[report.nodeid] = "failed"
            self.reason[report.nodeid] = "not collected: " + last_line(report.longreprtext)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """The worst of a test's three phases counts."""
        name = report.nodeid
        if report.failed or (report.skipped and self.outcome.get(name) != "failed"):
            self.outcome[name] = report.outcome
            text = report.longrepr[2] if report.skipped else last_line(report.longreprtext)
            self.reason[name] = text.removeprefix("Skipped: ")
        else:
            self.outcome.setdefault(name, report.outcome)


def last_line(text: str) -> str:
    """The error itself, in a line of moderate length."""
    errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (errors or text.splitlines() or [""])[0][:200]


def run(folder: Path, only: str | None) -> Count:
    """Run the tests of a release, in its folder.

    Args:
        folder: of the release, with ``tests/``.
        only: an expression for pytest's ``-k``.
    """
    import pytest

    count = Count()
    os.chdir(folder)
    sys.path.insert(0, str(folder / "tests"))  # they say `from utils import`
    words = ["tests", "-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short"]
    words += ["-c", os.devnull, f"--rootdir={folder}", "-o", "console_output_style=count"]
    words += ["-k", only] if only else []
    pytest.main(words, plugins=[count])
    return count


def grouped(count: Count, outcome: str) -> dict[str, list[str]]:
    """Tests of an outcome by reason, the commonest first."""
    found = collections.defaultdict(list)
    for name, what in count.outcome.items():
        if what == outcome:
            found[count.reason[name]].append(name)
    return dict(sorted(found.items(), key=lambda pair: -len(pair[1])))


def why(name: str) -> str | None:
    """The known reason of a failure."""
    patterns = (pattern for pattern in EXPECTED if fnmatch.fnmatch(name, pattern))
    return next((EXPECTED[pattern] for pattern in patterns), None)


def markdown(count: Count, about: dict[str, Any]) -> str:
    """The page: counts, and every test that did not pass."""
    number = collections.Counter(count.outcome.values())
    lines = [
        "# VISSL's own tests on the compatibility layer",
        "",
        f"`{about['command']}`, {about['date']}, commit {about['commit']}.",
        "",
        f"{about['hardware']['cpu']}, {about['hardware']['cores']} cores, no GPU; Python "
        f"{about['versions']['python']}, torch {about['versions']['torch']}, vissl "
        f"{about['versions']['vissl']}. {about['seconds']:.0f} s.",
        "",
        f"**{number['passed']:,} of {count.collected:,} pass**, {number['failed']} fail, "
        f"{number['skipped']} skip themselves, {count.collected - number.total()} were "
        f"not run. The release has {TESTS:,} tests.",
    ]
    for outcome, title in (("failed", "Failed"), ("skipped", "Skipped by the tests themselves")):
        groups = grouped(count, outcome)
        if groups:
            lines += ["", f"## {title}", "", "| tests | reason |", "|---|---|"]
            for reason, names in groups.items():
                known = why(names[0])
                named = ", ".join(f"`{name.rpartition('::')[2]}`" for name in names)
                text = f"{known} ({reason})" if known else reason
                lines.append(f"| {len(names)}: {named} | {text.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run, print and record; 1 where a test failed for no known reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="unpacked source release of VISSL v0.1.6")
    parser.add_argument("-k", dest="only", help="only some of the tests, as pytest's -k")
    parser.add_argument("--out", metavar="results/NAME", help="write to the folder NAME_<date>")
    args = parser.parse_args()
    if not (args.folder / "tests" / "test_configs.py").is_file():
        parser.error(f"{args.folder} holds no tests/test_configs.py; give it a source release")
    out = Path(args.out).absolute() if args.out else None
    began = time.monotonic()
    count = run(args.folder.resolve(), args.only)

    from convit_ssl.evaluation.results import commit, hardware, record_folder, versions, write_json

    date = time.strftime("%Y-%m-%d", time.gmtime())
    about = {
        "command": "python tests/vissl_suite.py FOLDER" + (f" -k {args.only}" * bool(args.only)),
        "commit": commit(), "versions": versions(), "hardware": hardware(), "date": date,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    page = markdown(count, about)
    print(page)
    if out:
        bad = {name: count.reason[name] for name, what in count.outcome.items() if what != "passed"}
        number = dict(collections.Counter(count.outcome.values()))
        place = record_folder(f"{out}_{date}")
        write_json({**about, "counts": number, "not_passed": bad}, place / "result.json")
        (place / "README.md").write_text(page)
    unknown = [name for name, what in count.outcome.items() if what == "failed" and not why(name)]
    return int(bool(unknown) or not count.outcome)


if __name__ == "__main__":
    sys.exit(main())
