"""When checkpoints are written, in the background and never twice at once."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from convit_ssl.engines.checkpoint import (
    BEST,
    checkpoint_name,
    point_to,
    write_checkpoint,
)
from convit_ssl.engines.console import Screen
from convit_ssl.engines.hooks import QuietHook, TrainingHook
from convit_ssl.engines.state import on_cpu, restore, run_state
from convit_ssl.evaluation import processes

SHORTEST_PAUSE = 10.0  # seconds between checkpoints at the ends of short epochs


class CheckpointHook(QuietHook):
    """Writes the state of a run: at epoch ends, every so many minutes, and at the end.

    Args:
        options: the experiment's options.
        folder: where checkpoints go.
        entry: what of the run does not change: model, data, configuration.
        training: whose figures go into each checkpoint.
        screen: where a failure is said, in the first process.
        resumed: the state the run goes on from, or None.
    """

    def __init__(
        self,
        options: Any,
        folder: Path,
        entry: dict[str, Any],
        training: TrainingHook,
        screen: Screen | None,
        resumed: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.options = options
        self.folder = folder
        self.entry = entry
        self.training = training
        self.screen = screen
        self.resumed = resumed
        self.saved_at = float("-inf")
        self.started = time.monotonic()
        self.seconds_in_steps = 0.0
        self._thread: threading.Thread | None = None

    def on_phase_start(self, task: Any) -> None:
        """Put back the random state once the loaders are made, just before the first step."""
        if self.resumed is not None:
            self.training.best = dict(self.resumed["convit_ssl"].get("best", {}))
            self.training.figures.update(self.resumed["convit_ssl"].get("figures", {}))
            self.training.resume_epoch(*restore(task, self.resumed))
            self.resumed = None

    def on_step(self, task: Any) -> None:
        """Save within an epoch when the last checkpoint is too long ago."""
        minutes = self.options.run.checkpoint_minutes
        since = time.monotonic() - max(self.saved_at, self.started)
        ends_epoch = task.iteration % task.steps_per_epoch == 0
        if task.train and not ends_epoch and self._agree(since > 60 * minutes):
            self._save(task, within_epoch=True)

    def on_phase_end(self, task: Any) -> None:
        """Save at the end of an epoch."""
        if not task.train:
            return
        epoch = task.train_phase_idx + 1
        last = epoch == self.options.optim.epochs
        best = self.training.best.get("epoch") == epoch
        if self._agree(last or best or time.monotonic() - self.saved_at > SHORTEST_PAUSE):
            self._save(task, within_epoch=False, best=best)

    def on_end(self, task: Any) -> None:
        """Wait until the last one is on the disk."""
        self.wait()

    def on_exception(self, task: Any) -> None:
        """Likewise."""
        self.wait()

    def wait(self) -> None:
        """Return when no checkpoint is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _agree(self, wanted: bool) -> bool:
        """The first process's watch decides for all: saving is collective."""
        return wanted if processes.world_size() == 1 else processes.broadcast(wanted)

    def _save(self, task: Any, within_epoch: bool, best: bool = False) -> None:
        begun = time.perf_counter()
        epoch = task.train_phase_idx + (0 if within_epoch else 1)
        entry = {
            **self.entry,
            "epoch": epoch,
            "step": task.iteration,
            "figures": dict(self.training.figures),
            "best": dict(self.training.best),
        }
        losses = self.training.epoch_losses() if within_epoch else (0.0, 0)
        state = run_state(task, entry, within_epoch, losses)
        self.saved_at = time.monotonic()
        if processes.rank() != 0:
            return
        self.wait()
        copy = on_cpu(state)
        name = checkpoint_name(epoch, task.iteration)
        self._thread = threading.Thread(target=self._write, args=(name, copy, best), daemon=False)
        self._thread.start()
        self.seconds_in_steps += time.perf_counter() - begun

    def _write(self, name: str, state: dict[str, Any], best: bool) -> None:
        try:
            write_checkpoint(self.folder, name, state, self.options.run.keep_checkpoints)
            if best:
                point_to(self.folder / BEST, name)
        except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
            free = os.statvfs(self.folder)
            mib = free.f_bavail * free.f_frsize / 2**20
            message = (
                f"checkpoint {name} could not be written ({error}); {mib:,.0f} MiB are free in "
                f"{self.folder}. Training goes on with the previous one; make room there"
            )
            logging.warning(message)
            if self.screen is not None:
                self.screen.line(f"warning: {message}", style="yellow")
