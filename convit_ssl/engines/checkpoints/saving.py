"""When checkpoints are written, in the background and never twice at once."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convit_ssl.adapters.weights import entry_of_trunk
from convit_ssl.engines.callbacks.console import Screen
from convit_ssl.engines.callbacks.heartbeat import SAVING, Heartbeat
from convit_ssl.engines.callbacks.progress import QuietHook, TrainingHook
from convit_ssl.engines.checkpoints.files import (
    BEST,
    checkpoint_name,
    point_to,
    write_checkpoint,
)
from convit_ssl.engines.checkpoints.resume import iteration_at, position, steps_taken
from convit_ssl.engines.checkpoints.run_folder import FolderGuard, newest_on_disk, resume_words
from convit_ssl.engines.checkpoints.state import on_cpu, restore, run_state
from convit_ssl.engines.launch.signals import FOLDER_GONE, Agreement, RunFailure, SignalBox, Stopped
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.schema_resolved import Resolved

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


SHORTEST_PAUSE = 10.0  # seconds between checkpoints at the ends of short epochs
FIRST_WRITE = 10.0  # seconds that the first one is expected to take at most
RETRY_AFTER = 60.0  # seconds after one that could not be written
LAST_TRIES = 300.0  # seconds in which the last one is tried again, which has no training beside it
LAST_PAUSE = 5.0  # seconds between


class CheckpointHook(QuietHook):
    """Writes checkpoints: at the ends of epochs, every few minutes, and when asked to stop.

    Args:
        options: the experiment's options.
        folder: where checkpoints go.
        entry: what of the run does not change: model, data, configuration.
        training: whose figures go into each checkpoint.
        screen: where a failure is said, in the first process.
        resumed: the state the run resumes from, or None.
        box: the signals that ask this process to stop.
        heartbeat: where "saving" is noted.
        guard: of the run folder, in the first process.
    """

    def __init__(
        self,
        options: Resolved,
        folder: Path,
        entry: dict[str, Any],
        training: TrainingHook,
        screen: Screen | None,
        resumed: dict[str, Any] | None,
        box: SignalBox | None = None,
        heartbeat: Heartbeat | None = None,
        guard: FolderGuard | None = None,
    ) -> None:
        super().__init__()
        self.options = options
        self.folder = folder
        self.entry = entry
        self.training = training
        self.screen = screen
        self.resumed = resumed
        self.box = box or SignalBox()
        self.heartbeat = heartbeat
        self.guard = guard
        self.agreement = Agreement()
        self.saved_at = float("-inf")
        self.started = time.monotonic()
        self.seconds_in_steps = 0.0
        self.seconds_to_write = 0.0  # of the last one, beside training
        self.written = 0
        self.failed = 0
        self.problem = ""  # with the last one
        self._name = ""  # of the last one
        self._unwritten: tuple[str, dict[str, Any], bool] | None = None
        # A step of the epoch that is under way, and how many of its images came before it.
        self._origin = (0, 0)
        self._thread: threading.Thread | None = None

    def on_start(self, task: ConViTSSLTask) -> None:
        """Take over the figures, and the place in the epoch."""
        self._origin = (task.iteration, 0)
        if self.resumed is None:
            return
        entry = self.resumed["convit_ssl"]
        self.training.best = dict(entry.get("best", {}))
        self.training.figures.update(entry.get("figures", {}))
        place = position(self.resumed)
        if place is not None:
            self._go_to(task, *place)
        self.training.steps_before = steps_taken(self.resumed) - task.iteration

    def _go_to(self, task: ConViTSSLTask, epoch: int, seen: int) -> None:
        images, batch = task.inputs.sampler.num_images, self.options.optim.batch_size
        # Where a larger batch than before no longer fits, the epoch ends with one step on its last
        # images, of which fewer than a batch come twice.
        seen = min(seen, images - batch)
        # VISSL reads where to go on from the checkpoint, in steps of today's batch.
        task.iteration = task.checkpoint["iteration"] = iteration_at(epoch, seen, images, batch)
        task.inputs.resume_at = (epoch, seen)
        self._origin = (task.iteration, seen)

    def on_phase_start(self, task: ConViTSSLTask) -> None:
        """Put back the random state once the loaders are made, just before the first step."""
        if task.train and task.iteration == task.train_phase_idx * task.steps_per_epoch:
            resumed_here = task.inputs.resume_at or (-1, 0)
            seen = resumed_here[1] if resumed_here[0] == task.train_phase_idx else 0
            self._origin = (task.iteration, seen)
        if self.resumed is not None:
            self.training.resume_epoch(*restore(task, self.resumed))
            self.resumed = None

    def on_step(self, task: ConViTSSLTask) -> None:
        """Save within an epoch when the last checkpoint is too long ago, or before leaving."""
        if task.train and task.iteration % task.steps_per_epoch == 0:
            return  # the end of the epoch saves, and leaves, once its figures are complete
        due = task.train and self._since() > self._interval()
        stop, save = self.agreement.decide(self._asked(), due and not self._busy())
        self._check_folder(stop)
        if stop or save:
            self._save(task, within_phase=True)
        if stop:
            self._leave(stop, task.iteration)

    def on_phase_end(self, task: ConViTSSLTask) -> None:
        """Save at the end of an epoch."""
        if not task.train:
            return
        epoch = task.train_phase_idx + 1
        last = epoch == self.options.optim.epochs
        best = self.training.best.get("epoch") == epoch
        # Epochs may be shorter than the time between two agreements: then this is the only place.
        pause = min(SHORTEST_PAUSE, self._interval())
        late = time.monotonic() - self.saved_at > pause and not self._busy()
        due = last or best or late
        stop, save = self.agreement.decide(self._asked(), due, now=True)
        self._check_folder(stop)
        if stop or save:
            self._save(task, within_phase=False, best=best, keep=last)
        if stop and not last:
            self._leave(stop, task.iteration)

    def on_end(self, task: ConViTSSLTask) -> None:
        """Wait until the last one is on the disk."""
        self.wait()

    def on_exception(self, task: ConViTSSLTask) -> None:
        """Likewise."""
        self.wait()

    def wait(self) -> None:
        """Return when no checkpoint is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _since(self) -> float:
        return time.monotonic() - max(self.saved_at, self.started)

    def _interval(self) -> float:
        """Seconds from one state to the next: so much earlier that it is on the disk in time."""
        seconds = 60.0 * float(self.options.run.checkpoint_minutes)
        if self.failed:
            return min(seconds, RETRY_AFTER)
        writing = self.seconds_to_write or min(seconds / 20, FIRST_WRITE)
        return max(seconds - self.agreement.lag - writing, seconds / 2)

    def _busy(self) -> bool:
        """Whether the last one is still being written: then no step waits for it."""
        return self._thread is not None and self._thread.is_alive()

    def _asked(self) -> int:
        """Why training should stop: a signal, the folder that is gone, or nothing (0)."""
        gone = self.guard is not None and self.guard.gone()
        return FOLDER_GONE if gone else self.box.signum

    def _check_folder(self, stop: int) -> None:
        """All processes leave together where the run folder is gone.

        Raises:
            UserError: what happened to it.
        """
        if stop == FOLDER_GONE:
            self.wait()
            raise UserError(processes.broadcast(self.guard.describe() if self.guard else ""))

    def _leave(self, signum: int, step: int) -> None:
        """All processes leave together, once the checkpoint is on the disk or has failed.

        Raises:
            Stopped: always; it says what is on the disk.
        """
        self.wait()
        newest, problem = processes.broadcast(self._outcome())
        raise Stopped(signum, step, newest, problem)

    def _outcome(self) -> tuple[str, str]:
        """Name of the newest checkpoint on the disk, and why the last one is not there."""
        found = newest_on_disk(self.folder)
        newest = found.name if found is not None else ""
        if newest == self._name:
            return newest, ""
        if self.guard is not None and self.guard.gone_now():
            return newest, self.guard.describe()
        return newest, self.problem or f"{self._name} is not in {self.folder} any more"

    def finish(self) -> None:
        """Wait until the last checkpoint is on disk; if the disk is full, for a limited time.

        Raises:
            RunFailure: there was none in all that time.
            UserError: the run folder is gone.
        """
        self.wait()
        deadline = time.monotonic() + LAST_TRIES
        while self._unwritten is not None:
            if self.guard is not None and self.guard.gone():
                raise UserError(self.guard.describe())
            if self.box.signum or time.monotonic() > deadline:
                raise RunFailure(
                    f"the last step is finished, but its checkpoint could not be written to "
                    f"{self.folder} ({self.problem}). Fix this and run the same command again. "
                    f"{resume_words(self.folder)}"
                )
            time.sleep(LAST_PAUSE)
            self._write(*self._unwritten)

    def _save(
        self, task: ConViTSSLTask, within_phase: bool, best: bool = False, keep: bool = False
    ) -> None:
        begun = time.perf_counter()
        if self.heartbeat is not None:
            self.heartbeat.at(task.iteration, SAVING)
        unfinished = within_phase and task.train
        epoch = task.train_phase_idx + (0 if unfinished else 1)
        step, seen = self._origin
        seen += (task.iteration - step) * self.options.optim.batch_size
        entry = {
            **self.entry,
            **entry_of_trunk(task.base_model),
            "epoch": epoch,
            "step": task.iteration,
            "steps_taken": task.iteration + self.training.steps_before,
            "position": [epoch, seen if unfinished else 0],
            "figures": dict(self.training.figures),
            "best": dict(self.training.best),
        }
        losses = self.training.epoch_losses() if unfinished else (0.0, 0)
        state = run_state(task, entry, within_phase, losses)
        self.saved_at = time.monotonic()
        if processes.rank() != 0:
            return
        self.wait()
        copy = on_cpu(state)
        name = self._name = checkpoint_name(epoch, entry["steps_taken"])
        self._unwritten = (name, copy, best) if keep else None
        self._thread = threading.Thread(target=self._write, args=(name, copy, best), daemon=False)
        self._thread.start()
        self.seconds_in_steps += time.perf_counter() - begun

    def _write(self, name: str, state: dict[str, Any], best: bool) -> None:
        begun = time.monotonic()
        if self.training.recorder is not None:
            self.training.recorder.sync()
        try:
            write_checkpoint(self.folder, name, state, self.options.run.keep_checkpoints)
            if best:
                point_to(self.folder / BEST, name)
        except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
            self.failed += 1
            self.problem = _short(error)
            if self.guard is not None and self.guard.gone_now():
                return  # the next step says so, and ends the run
            self._warn(
                f"checkpoint {name} could not be written ({self.problem}); "
                f"{_free_mib(self.folder):,.0f} MiB are free in {self.folder}. The previous one "
                f"is kept, and {'this' if self._unwritten else 'the next'} one is tried soon; "
                f"{'make room there' if _is_full(error) else 'see to it'}"
            )
            return
        self._unwritten = None
        self.problem = ""
        self.written += 1
        self.seconds_to_write = time.monotonic() - begun
        if self.failed:
            self._warn(f"checkpoint {name} was written, after {self.failed} failed attempts")
            self.failed = 0

    def _warn(self, message: str) -> None:
        logging.warning(message)
        if self.screen is not None:
            self.screen.line(f"warning: {message}", style="yellow")


def _short(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0][:120]


def _is_full(error: Exception) -> bool:
    return getattr(error, "errno", errno.ENOSPC) in (errno.ENOSPC, errno.EDQUOT)


def _free_mib(folder: Path) -> float:
    try:
        room = os.statvfs(folder)
    except OSError:
        return 0.0
    return room.f_bavail * room.f_frsize / 2**20
