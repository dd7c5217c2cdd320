"""What happens around VISSL's training loop: the screen, the record, the watch, the faults."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from classy_vision.hooks.classy_hook import ClassyHook
from torch import Tensor

from convit_ssl.engines.callbacks.console import Screen, Speed, duration
from convit_ssl.engines.callbacks.feature_checks import Watch
from convit_ssl.engines.callbacks.feature_scores import unproven
from convit_ssl.engines.callbacks.forecast import Measured, beside_steps
from convit_ssl.engines.callbacks.record import Recorder
from convit_ssl.engines.callbacks.val_figures import accuracy_figures, described
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.machine import peak_resident_mib, release_freed_memory
from convit_ssl.methods import diagnose, get_method, options_of
from convit_ssl.runs import RunFolder
from convit_ssl.schema_resolved import Resolved

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


READ_EVERY = 10  # steps between two looks at the loss, each a wait for the device


class QuietHook(ClassyHook):  # type: ignore[misc]
    """A hook that does nothing where it says nothing."""

    on_start = ClassyHook._noop
    on_phase_start = ClassyHook._noop
    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_update = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop
    on_end = ClassyHook._noop
    on_exception = ClassyHook._noop


class TrainingHook(QuietHook):
    """Follows training: losses, speed, figures of the features, collapse and NaN.

    Args:
        options: the experiment's options.
        screen: the terminal, or None in processes that show nothing.
        recorder: the files, or None likewise.
        started: `time.time()` at the command's start, for the time to the first step.
    """

    def __init__(
        self, options: Resolved, screen: Screen | None, recorder: Recorder | None, started: float
    ) -> None:
        super().__init__()
        self.options = options
        self.screen = screen
        self._test = contextlib.ExitStack()  # what is shown while val is tested
        self.recorder = recorder
        self.started = started
        self.steps_before = 0  # beyond the task's count, which follows today's batch
        self.figures: dict[str, Any] = {}
        self.best: dict[str, Any] = {}
        self.recent: deque[tuple[int, Tensor, Tensor]] = deque(maxlen=READ_EVERY)
        self.verdict_lines: list[str] = []
        self.watch: Watch

    def on_start(self, task: ConViTSSLTask) -> None:
        """Show the bar."""
        self.watch = Watch(self.options, task.device, task.autocast, task.inputs.train)
        doubt = unproven(self.watch.best_by)
        if doubt and self.screen is not None:
            self.screen.line(f"warning: {doubt}", style="yellow")
        self.speed = Speed(task.max_iteration, task.iteration, task.get_global_batchsize())
        if self.screen is not None:
            self.screen.start(task.max_iteration, task.iteration)

    def on_phase_start(self, task: ConViTSSLTask) -> None:
        """Begin an epoch, or a test."""
        task.phase_start_time = time.time()
        task.batches = 0
        self.total = torch.zeros((), device=task.device)
        self.count = 0
        self.counted_before = 0
        self.phase_started = time.perf_counter()
        if not task.train:
            self._test.enter_context(self._working("testing on val"))

    def epoch_losses(self) -> tuple[float, int]:
        """Sum and number of this process's losses in the epoch that is under way."""
        return float(self.total), self.count

    def resume_epoch(self, total: float, count: int) -> None:
        """Go on with the mean of an epoch that was cut off."""
        self.total += total
        self.count += count
        self.counted_before = count

    def on_step(self, task: ConViTSSLTask) -> None:
        """Keep the loss; look at it from time to time."""
        task.batch_time.clear()  # VISSL's list grows for the whole run
        if not task.train:
            return
        if self.started:
            self.figures["first_step_s"] = round(time.time() - self.started, 2)
            self.figures["first_step_cpu_s"] = round(time.process_time(), 2)
            self.started = 0.0
        batch = task.last_batch
        if not batch.skipped:
            self.total += batch.loss
            self.count += 1
            self.recent.append((task.iteration, batch.loss, batch.sample["data_idx"]))
        if task.iteration % READ_EVERY == 0 or self.count == 1:
            self._read(task)

    def on_phase_end(self, task: ConViTSSLTask) -> None:
        """Close an epoch: means, figures of the features, a line."""
        if not task.train:
            self._test.close()
            self.speed.pause("test", time.perf_counter() - self.phase_started)
            self._tested(task)
            return
        self._check_finite(task)
        mean = self.total / max(self.count, 1)
        if processes.world_size() > 1:
            dist.all_reduce(mean)
            mean /= processes.world_size()
        epoch = task.train_phase_idx + 1
        seconds = time.perf_counter() - self.phase_started
        images = (self.count - self.counted_before) * task.get_global_batchsize()
        figures: dict[str, Any] = {
            "loss": round(float(mean), 6),
            **self._schedules(task),
            "images_per_s": round(images / seconds, 1),
            "seconds": round(seconds, 3),
            "peak_memory_mib": peak_memory_mib(task.device),
        }
        if self.watch.due(epoch):
            started = time.perf_counter()
            with self._working("evaluating the features"):
                self._evaluate(task, epoch, figures)
            looked = time.perf_counter() - started
            self.speed.pause("evaluation", looked)
            figures["look_seconds"] = round(looked, 3)
        self.figures |= figures
        if self.recorder is not None:
            self.recorder.write("epoch", epoch, self._steps(task), figures)
        if self.screen is not None:
            self.screen.line(epoch_line(epoch, self.options.optim.epochs, figures))

    def _working(self, label: str) -> contextlib.AbstractContextManager[None]:
        return self.screen.working(label) if self.screen is not None else contextlib.nullcontext()

    def _evaluate(self, task: ConViTSSLTask, epoch: int, figures: dict[str, Any]) -> None:
        """Add what the features are worth after an epoch."""
        trunk = watched_trunk(task)
        figures |= self.watch.figures(trunk)
        if self.recorder is not None:
            self.recorder.write_locality(trunk, figures, self._steps(task))
        self._compare_with_best(epoch, figures)
        self._judge(epoch, figures)
        self._compare(task, epoch, trunk, figures)

    def on_end(self, task: ConViTSSLTask) -> None:
        """Take the bar away."""
        self._close()

    def on_exception(self, task: ConViTSSLTask) -> None:
        """Leave the terminal and the files whole."""
        self._close()

    def _close(self) -> None:
        self._test.close()
        if self.screen is not None:
            self.screen.stop()
        if self.recorder is not None:
            self.recorder.close()

    def _steps(self, task: ConViTSSLTask) -> int:
        """Steps that were taken: another batch than a run began with counts its own otherwise."""
        return int(task.iteration) + self.steps_before

    def _schedules(self, task: ConViTSSLTask) -> dict[str, Any]:
        groups = task.optimizer.optimizer.param_groups
        figures = {key: max(group[key] for group in groups) for key in ("lr", "weight_decay")}
        stats = {key: float(value) for key, value in task.base_loss.stats.items()}
        if task.grad_norm is not None:
            stats["grad_norm"] = float(task.grad_norm)
        return {key: float(f"{value:.6g}") for key, value in {**figures, **stats}.items()}

    def _read(self, task: ConViTSSLTask) -> None:
        self._check_finite(task)
        loss = float(task.last_batch.loss)
        figures = {"loss": round(loss, 6), **self._schedules(task)}
        done = task.iteration
        if self.recorder is not None and done % READ_EVERY == 0:
            epoch = round(done / task.steps_per_epoch, 4)
            self.recorder.write("step", epoch, self._steps(task), figures)
        if self.screen is not None:
            knn = self.figures.get("knn")
            text = (
                f"loss {loss:.3f}  lr {figures['lr']:.2g}  "
                f"{self.speed.images_per_second(done):,.0f} img/s  "
                f"{duration(self._seconds_left(task))} left"
            )
            text += f"  kNN while training {100 * knn:.1f} %" if knn is not None else ""
            epoch_text = f"epoch {task.train_phase_idx + 1}/{self.options.optim.epochs}"
            self.screen.update(done, epoch_text, text)

    def _seconds_left(self, task: ConViTSSLTask) -> float:
        """To the end of the run, with its tests, evaluations and verdict."""
        step = self.speed.step_seconds(task.iteration)
        measured = Measured(self.speed.usual("test"), self.speed.usual("evaluation"))
        steps = (task.max_iteration - task.iteration) * step
        return float(steps + beside_steps(task, step, measured).seconds)

    def _check_finite(self, task: ConViTSSLTask) -> None:
        """Stop at a loss that is not finite, with the names of the files it came from."""
        if not self.recent:
            return
        losses = torch.stack([loss for _, loss, _ in self.recent])
        finite = torch.isfinite(losses)
        everywhere = finite.all().to(torch.int32)
        if processes.world_size() > 1:
            dist.all_reduce(everywhere, dist.ReduceOp.MIN)
        if bool(everywhere):
            self.recent.clear()
            return
        bad = [entry for entry, fine in zip(self.recent, finite.tolist(), strict=True) if not fine]
        folder = RunFolder.of(self.options.run).path
        report = folder / f"not_finite_rank{processes.rank()}.json"
        if bad:
            step, loss, index = bad[0]
            files = [task.inputs.train.path(int(i)) for i in index]
            report.write_text(json.dumps({"step": step, "loss": str(float(loss)), "files": files}))
        raise UserError(
            f"the loss is not finite (step {bad[0][0] if bad else task.iteration}). The images of "
            f"that step are listed in {report}; the last checkpoint is from before. Lower "
            "optim.lr, set optim.clip_grad=3.0 or run.precision=fp32, then run the same command "
            "again; optim.skip_nan_steps=N leaves out N such steps"
        )

    def _compare_with_best(self, epoch: int, figures: dict[str, Any]) -> None:
        """Remember the best epoch by what ``watch.best_by`` names, where it was measured."""
        name = self.watch.best_by
        if figures.get(name) is not None and figures[name] > self.best.get(name, -math.inf):
            self.best = {"epoch": epoch, name: figures[name]}

    def _judge(self, epoch: int, figures: dict[str, Any]) -> None:
        """Name a collapse once, as long as it lasts."""
        method = self.options.method
        message = diagnose(
            figures.get("cross_entropy", figures["loss"]),
            out_dim=get_method(method.name).softmax_width(options_of(method)),
            rank=figures.get("rankme"),
            std=figures.get("feature_std"),
            teacher_entropy=figures.get("teacher_entropy"),
            epoch=epoch,
            grace_epochs=max(3.0, float(self.options.optim.warmup_epochs)),
        )
        said = self.figures.pop("collapse", "")
        repeated = message is not None and said.partition(":")[0] == message.partition(":")[0]
        if message and not repeated and self.screen is not None:
            self.screen.line(f"warning: {message}", style="yellow")
        if message:
            figures["collapse"] = message

    def _compare(
        self, task: ConViTSSLTask, epoch: int, trunk: Any, figures: dict[str, Any]
    ) -> None:
        """Say how features compare with pixels, and give the verdict after the last epoch.

        A collective call.
        """
        for text in self.watch.references.messages(epoch, figures):
            if self.screen is not None:
                self.screen.line(f"warning: {text}", style="yellow")
        if epoch < self.options.optim.epochs:
            return
        classifier = None
        if self.options.derived.test_model:
            frozen = not any(parameter.requires_grad for parameter in trunk.parameters())
            if frozen or self.options.run.fsdp:  # many probes, or shares of one classifier
                return
            classifier = task.base_model
        release_freed_memory()  # what training held does not fit the sizes of these passes
        verdict = self.watch.verdict(trunk, figures, classifier)
        if verdict is not None:
            figures["verdict"] = verdict.as_dict()
            self.verdict_lines = verdict.lines()

    def _tested(self, task: ConViTSSLTask) -> None:
        values = task.meters[0].value if task.meters else {}
        if not values:
            return
        epoch = task.train_phase_idx + 1
        figures = accuracy_figures(values, task.inputs.train.classes)
        self.figures |= figures
        if self.recorder is not None:
            self.recorder.write("eval", epoch, self._steps(task), figures)
        if self.screen is not None:
            first, *others = described(figures)
            self.screen.line(f"epoch {epoch:>3}  {first}")
            for line in others:
                self.screen.line(f"           {line}")


def watched_trunk(task: ConViTSSLTask) -> Any:
    """The trunk that is evaluated: the teacher's where there is one.

    A collective call where trunks are shared out (FSDP2): each process gets a whole copy.
    """
    teacher = getattr(task.base_loss, "teacher", None)
    model = teacher if teacher is not None else task.base_model
    trunk = getattr(model.trunk, "base_model", model.trunk)
    if not task.options.run.fsdp:
        return trunk
    from convit_ssl.adapters.sharding import whole_trunk

    return whole_trunk(trunk)


def peak_memory_mib(device: torch.device) -> int:
    """Peak memory: of the GPU, or of this process on a CPU, in MiB."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) / 2**20)
    return int(peak_resident_mib())


def epoch_line(epoch: int, epochs: int, figures: dict[str, Any]) -> str:
    """One line of an epoch for the terminal."""
    parts = [
        f"epoch {epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {figures['loss']:.4f}",
        f"lr {figures['lr']:.2e}",
        f"{figures['images_per_s']:,.0f} img/s",
        f"{figures['peak_memory_mib']:,} MiB",
        duration(figures["seconds"]),
    ]
    if "rankme" in figures:
        parts.append(f"rank {figures['rankme']:.1f}")
    if "knn" in figures:
        name = figures.get("knn_name", "kNN (sample)")
        parts.append(f"{name} {100 * figures['knn']:.2f} %")
    return "  ".join(parts)
