"""metrics.jsonl, TensorBoard and, when asked for, Weights & Biases: one record, three readers."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from convit_ssl.analysis.training import write_summary
from convit_ssl.errors import UserError
from convit_ssl.models import ConViT
from convit_ssl.runs import RunFolder
from convit_ssl.schema_resolved import Resolved
from convit_ssl.sealed import read_line, seal_line


class Recorder:
    """Writes figures of a run. Only the first process has one.

    Args:
        folder: the run folder.
        options: the experiment's options.
    """

    def __init__(self, folder: Path, options: Resolved) -> None:
        self.file = open(RunFolder(folder).metrics, "a", encoding="utf-8")  # noqa: SIM115 open for the run
        self.folder = folder
        self.options = options
        self._writer: Any = None
        self._failed = False
        self._wandb: Any = _wandb_run(options, folder) if options.run.wandb else None

    def drop_after(self, step: int) -> None:
        """Drop lines beyond the step that a run resumes from; -1 drops all.

        On a full disk they stay, behind those that will be written again.
        """
        path = RunFolder(self.folder).metrics
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step(line) <= step]
        if damaged := sum(read_line(line) is None for line in lines[:-1]):
            logging.warning("damaged lines of %s were dropped: %d", path.name, damaged)
        temporary = path.with_name(f".{path.name}.partial")
        try:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            logging.warning("figures of steps that are done again stay in %s: %s", path, error)
            return
        self.file.close()
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 open for the run

    def write(self, kind: str, epoch: float, step: int, figures: Mapping[str, Any]) -> None:
        """One line: kind is step, epoch or eval."""
        try:
            self._write(kind, epoch, step, figures)
        except OSError as error:  # a full disk: training goes on, the figures have a gap
            if not self._failed:
                logging.warning("figures are not recorded: %s", error)
            self._failed = True

    def _write(self, kind: str, epoch: float, step: int, figures: Mapping[str, Any]) -> None:
        line = {"kind": kind, "epoch": epoch, "step": step, **figures}
        self._append(seal_line(line))
        scalars = {key: v for key, v in figures.items() if isinstance(v, (int, float))}
        if self.options.run.tensorboard:
            for key, value in scalars.items():
                self.writer.add_scalar(f"{kind}/{key}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{kind}/{key}": value for key, value in scalars.items()}, step=step)

    def _append(self, line: str) -> None:
        """A whole line or none: nothing stays in a buffer, to fail when the file is closed."""
        descriptor = self.file.fileno()
        size = os.fstat(descriptor).st_size
        data = line.encode()
        try:
            if os.write(descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(descriptor, size)
            raise

    def write_locality(self, trunk: nn.Module, figures: Mapping[str, Any], step: int) -> None:
        """Gates, widths and non-locality for TensorBoard, with a picture of the heads.

        A CNN, which the studies compare with, has none of them.
        """
        if not self.options.run.tensorboard or not isinstance(trunk, ConViT):
            return
        tables = {name: rows for name, rows in figures.items() if _is_table(rows)}
        try:
            write_summary(self.writer, tables, step, trunk)
        except OSError as error:
            logging.warning("locality is not recorded: %s", error)

    @property
    def writer(self) -> Any:
        """TensorBoard's writer, made at its first use: importing it costs half a second."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            if not self.folder.is_dir():  # moved away: TensorBoard would make it again
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))
            self._writer = SummaryWriter(str(RunFolder(self.folder).tensorboard))
        return self._writer

    def sync(self) -> None:
        """Have what was recorded so far on the disk itself, as the checkpoint that follows."""
        if self.file.closed:  # which synced it; a last checkpoint may still wait for room
            return
        with contextlib.suppress(OSError):  # training continues without a record
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Flush everything."""
        self.sync()
        self.file.close()
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()


def _step(line: str) -> float:
    try:
        return float((read_line(line) or {})["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut off by a kill


def _wandb_run(options: Resolved, folder: Path) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("run.wandb=true, but wandb is not installed: pip install wandb") from None
    return wandb.init(project="convit_ssl", name=folder.name, dir=str(folder))


def _is_table(value: Any) -> bool:
    """Whether a figure has rows, one for each layer; intervals are lists, too."""
    return isinstance(value, list) and all(isinstance(row, list) for row in value)
