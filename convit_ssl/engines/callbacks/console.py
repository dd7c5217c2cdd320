"""What a person sees: one screen of facts, a progress bar, a line per epoch, the result."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from convit_ssl.data.listing.names import some
from convit_ssl.engines.options.plan import Plan
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.methods import Choice
from convit_ssl.models.trunks import AnyConfig, TrunkConfig
from convit_ssl.printable import printable
from convit_ssl.starting import own_progress, own_progress_ended, pause, spoke
from convit_ssl.terminal import Terminal

WIDTH = 100
_MILLIONS = 100_000  # parameters from which they are given in millions


class Screen:
    """The terminal of the first process; plain lines where the output is no terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Terminal(width=None if sys.stdout.isatty() else WIDTH, quiet=quiet)
        self.live = self.console.is_terminal
        self._progress: Progress | None = None
        self._task: Any = None
        self._total = 0
        self._began = self._last_line = time.monotonic()
        self._own_progress = False

    def facts(self, rows: Mapping[str, str], title: str) -> None:
        """The facts of a run, a row each."""
        self.console.print(Text(printable(title), style="bold"))
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for name, value in rows.items():
            table.add_row(name, value)
        self.console.print(table)

    def start(self, total: int, done: int) -> None:
        """Show the bar of all optimiser steps."""
        self._total = total
        self._began = self._last_line = time.monotonic()
        if not self.live:
            return
        self._show_silence(False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self.console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("", total=total, completed=done, figures="")
        self._progress.start()

    def update(self, done: int, epoch: str, figures: str) -> None:
        """Move the bar; elsewhere, as in a job's log, write a line if none came for a while.

        How long a while is follows from the time since the start; see `pause`.
        """
        self._show_silence(False)  # the first step may take seconds
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=epoch, figures=figures)
        elif (now := time.monotonic()) - self._last_line >= pause(now - self._began):
            self.line(f"  step {done:,} of {self._total:,} ({epoch})  {figures}", style="dim")

    @contextlib.contextmanager
    def working(self, label: str) -> Iterator[None]:
        """Something between two steps of training: named at the bar, or in lines from 2 s on."""
        if self._progress is not None:
            self._progress.update(self._task, figures=label)
            yield
            return
        with progress_bar("" if self.live or self.console.quiet else label, "parts"):
            yield

    def line(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self._last_line = time.monotonic()
        self.console.print(Text(printable(text), style=style), soft_wrap=True)

    def _show_silence(self, shown: bool) -> None:
        if shown == self._own_progress:
            (own_progress_ended if shown else own_progress)("training")
        self._own_progress = not shown

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            spoke()
        self._show_silence(True)


# Experiments that somebody runs for the sake of a trunk that was pretrained.
STARTING_FROM_WEIGHTS = ("convit_finetune", "convit_linear", "convit_low_shot")


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= _MILLIONS else f"{parameters:,}"


def run_facts(plan: Plan, parameters: int, resumed_from: str | None) -> dict[str, str]:
    """The screen of facts: data, model, views, schedule, machine, where outputs go."""
    options = plan.settings
    derived, optim, crops = options.derived, options.optim, options.crops
    local = f" + {crops.local_count} x {crops.local_size} px" if crops.local_count else ""
    steps = derived.steps_per_epoch
    some_epochs = f"{optim.epochs} epoch{'' if optim.epochs == 1 else 's'}"
    decay = f"{optim.weight_decay:g}"
    if derived.weight_decay_end != optim.weight_decay:
        decay += f" -> {derived.weight_decay_end:g}"
    rows = {
        "data": _data_facts(plan.facts),
        "model": f"{options.trunk.variant}: {_count(parameters)} parameters, "
        + _model_facts(plan.trunk),
        "views": f"{crops.global_count} x {crops.global_size} px{local}, "
        + _augmentation_facts(plan.options),
        "method": _method_facts(plan.options["method"]),
        "schedule": f"{some_epochs} x {steps} steps, batch {optim.batch_size} "
        f"({derived.world_size} x {derived.batch_per_process}), "
        f"{optim.name}, lr {derived.lr:.3g} after {optim.warmup_epochs:g} epochs, "
        f"weight decay {decay}",
        "machine": f"{plan.placement.device}, {options.run.precision}, "
        f"{_threads(plan)}, {_workers(plan.placement.workers)} per process",
        "output": str(plan.folder),
    }
    if plan.memory is not None:
        rows["memory"] = plan.memory.describe()
    if plan.notes:
        rows["note"] = ". ".join(plan.notes)
    if plan.choices:
        rows["from data"] = ", ".join(_chosen(*choice) for choice in plan.choices.items())
        rows[""] = "reasons in config.yaml; override any, or set scale_to_data=false"
    if options.weights:
        weights = f"{options.weights} ({options.weights_from})"
        gate = options.trunk.gate_start
        if gate is not None:
            weights += f", a plain ViT, whose first layers become GPSA with gates at {gate:g}"
        rows["weights"] = weights
    elif options.experiment in STARTING_FROM_WEIGHTS:
        rows["weights"] = "none (random init); pass weights=PATH to start from a checkpoint"
    if resumed_from:
        rows["resumed"] = resumed_from
    return rows


def _chosen(name: str, choice: Choice) -> str:
    """``epochs=6 (given)``, or ``lr=0.016 per 256 images``, which the schedule has for a step."""
    unit = " per 256 images" if name == "lr" else ""
    return f"{name}={choice.written}{unit}" + " (given)" * choice.given


def _data_facts(facts: Mapping[str, Any]) -> str:
    """How many images of what size, colour and range, and where they lie."""
    height, width = facts["native_size"]
    colour = " grey" if facts["grey"] else " colour"
    if facts["white_level"]:
        # A collection in colour may have some images of 16-bit grey.
        which = "" if facts["grey"] else "16-bit grey with "
        colour += f", {which}white at {facts['white_level']:,}"
    for name, words in (("signed_range", "signed"), ("float_range", "floats")):
        if facts.get(name):
            low, high = facts[name]
            colour += f", {words} from {low:,.6g} (black) to {high:,.6g} (white)"
    if facts.get("channels"):
        names = [str(name) for name in facts.get("channel_names") or facts["channels"]]
        count = len(facts["channels"])
        colour = f", {count} channel{'s' if count > 1 else ''} ({some(names, 8)}) in floating point"
    if facts.get("window"):
        colour += f", window {facts['window']}"
    subset = f", subset {facts['subset']}" if facts["subset"] else ""
    return (
        f"{facts['name']}: {facts['images']:,} images, {facts['classes']} classes, "
        f"{height} x {width}{colour}{subset}, in {facts['folder']}"
    )


def _workers(count: int) -> str:
    return f"{count} loader worker{'' if count == 1 else 's'}"


def _threads(plan: Plan) -> str:
    count, why = plan.placement.threads, plan.placement.threads_from
    return f"{count} thread{'' if count == 1 else 's'}" + (f" ({why})" if why else "")


def _model_facts(trunk: AnyConfig) -> str:
    if isinstance(trunk, TrunkConfig):
        patch = f"patch {trunk.patch_size}, " if trunk.patch_size > 1 else ""
        return f"{patch}{trunk.embed_dim} features"
    height, width = trunk.grid_size(*trunk.image_shape)
    layers = f"{trunk.num_gpsa_layers} of {trunk.depth} layers GPSA"
    return f"patch {trunk.patch_size}, grid {height} x {width}, {layers}"


def _augmentation_facts(options: Mapping[str, Any]) -> str:
    """The pipeline; RandAugment and erasing are timm's in each of them."""
    erasing = options["method"].get("erasing")
    policy = options["method"].get("rand_augment")
    parts = [policy] if policy else []
    parts += [f"erasing {erasing:g}"] if erasing else []
    return f"{' and '.join(parts)} by timm" if parts else f"augment={options['augment']}"


def _method_facts(method: Mapping[str, Any]) -> str:
    shown = ("out_dim", "temperature", "teacher_temperature", "momentum", "mixup", "cutmix")
    parts = [f"{key} {method[key]:g}" for key in shown if method.get(key) is not None]
    return f"{method['name']}: {', '.join(parts)}" if parts else str(method["name"])


def duration(seconds: float) -> str:
    """1:02:03, or 2:03."""
    whole = int(seconds + 0.5)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class Speed:
    """Images per second and the time of a step, from the steps since the last start.

    Tests and evaluations, which `pause` tells of, do not count.
    """

    def __init__(self, total_steps: int, done: int, batch: int) -> None:
        self.total = total_steps
        self.first = done
        self.batch = batch
        self.started = time.perf_counter()
        self.pauses: dict[str, list[float]] = {}

    def pause(self, kind: str, seconds: float) -> None:
        """Tell of time that no step took."""
        self.pauses.setdefault(kind, []).append(seconds)

    def usual(self, kind: str) -> float | None:
        """Mean seconds of a pause of this kind; None before the first."""
        found = self.pauses.get(kind)
        return sum(found) / len(found) if found else None

    def step_seconds(self, done: int) -> float:
        """Mean since the start."""
        paused = sum(map(sum, self.pauses.values()))
        elapsed = time.perf_counter() - self.started - paused
        return max(elapsed, 1e-9) / max(done - self.first, 1)

    def images_per_second(self, done: int) -> float:
        """Mean since the start."""
        return self.batch / self.step_seconds(done) if done > self.first else 0.0
