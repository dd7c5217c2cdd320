"""What a run folder holds: every file name, and the one reader of each file.

Reading is forgiving here. A run may be half written, or its disk may have been full; what is
missing or damaged comes back as nothing, and the caller says what that means.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convit_ssl.errors import UserError
from convit_ssl.reading import read_json, regular_file
from convit_ssl.sealed import read_line

if TYPE_CHECKING:
    from convit_ssl.schema import RunOptions

Row = dict[str, Any]
ROWS_LIMIT = 512 * 2**20  # bytes of metrics.jsonl, about two million measurements
_TAIL = 8192  # bytes of metrics.jsonl that hold its last line


class RunFolder:
    """A folder that training writes, by the names of what is in it.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def of(cls, run: RunOptions) -> RunFolder:
        """The folder of a run that is planned; before, ``run.dir`` may be None."""
        assert run.dir is not None
        return cls(run.dir)

    def __fspath__(self) -> str:
        """The folder: this can stand wherever a path can."""
        return os.fspath(self.path)

    @property
    def config(self) -> Path:
        """The resolved options, written before anything runs."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """A line of JSON for every measurement while training."""
        return self.path / "metrics.jsonl"

    @property
    def result(self) -> Path:
        """Figures, data and versions of a finished run."""
        return self.path / "result.json"

    @property
    def log(self) -> Path:
        """The log of the first process."""
        return self.path / "log.txt"

    @property
    def unreadable(self) -> Path:
        """A line of JSON for every image that could not be read."""
        return self.path / "unreadable.jsonl"

    @property
    def threads(self) -> Path:
        """A line of JSON for every choice of a number of threads."""
        return self.path / "threads.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's files."""
        return self.path / "tensorboard"

    @property
    def race(self) -> Path:
        """The race that chose the method, of ``config=convit_auto``."""
        return self.path / "race.json"

    @property
    def trials(self) -> Path:
        """The trials of a race that is not over."""
        return self.path / "race"

    @property
    def lock(self) -> Path:
        """Held by the process that trains."""
        return self.path / ".lock"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints' folder."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The newest checkpoint, a link where the file system has links."""
        return self.checkpoints / "last.torch"

    @property
    def outcome(self) -> tuple[Path, ...]:
        """What training adds to, run after run, besides checkpoints and the log."""
        return (
            self.metrics, self.threads, self.result, self.unreadable, self.tensorboard, self.race
        )  # fmt: skip

    @property
    def watched(self) -> tuple[Path, Path, Path]:
        """What changes whenever there is something new to show."""
        return self.metrics, self.checkpoints, self.config

    def finished(self) -> bool:
        """Whether the run wrote its result."""
        return self.result.is_file()

    def rows(self) -> tuple[list[Row], list[int]]:
        """The measurements in their order, and the numbers of damaged lines, from 1.

        Raises:
            OSError: metrics.jsonl is missing or cannot be read.
            UserError: it is not a file, or larger than `ROWS_LIMIT`.
        """
        rows, damaged = [], []
        if self.metrics.exists():
            regular_file(self.metrics, ROWS_LIMIT)
        text = self.metrics.read_bytes().decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            row = read_line(line)
            if row is None:
                damaged.append(number)
            else:
                rows.append(row)
        return rows, damaged

    def last_row(self) -> Row:
        """The last whole measurement, without reading the others; empty without one."""
        try:
            with open(regular_file(self.metrics, ROWS_LIMIT), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                lines = file.read().decode("utf-8", errors="replace").splitlines()
        except (OSError, UserError):
            return {}
        found = (read_line(line) for line in reversed(lines))
        return next((row for row in found if row is not None), {})

    def read_result(self) -> Row:
        """What result.json holds; empty where it is missing or damaged."""
        try:
            found = read_json(self.result)
        except (OSError, UserError):
            return {}
        return found if isinstance(found, dict) else {}


def race_reason(options: Mapping[str, Any] | None) -> str | None:
    """Why ``config=convit_auto`` took the method of a run; None for other runs.

    Args:
        options: of the run, as its configuration or a checkpoint has them.
    """
    found: object = options
    for name in ("derived", "race", "reason"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None
