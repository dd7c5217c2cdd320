"""``bench linear``: the linear probe over many classes, part by part."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from convit_ssl.bench.report import TableOf
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.probes.heads import Head, LinearHeads, train_heads
from convit_ssl.evaluation.probes.linear import LinearConfig, evaluate_linear
from convit_ssl.evaluation.probes.splits import ProbeData, hold_out
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.models.products import onednn_products

TIMED = 20  # steps of the comparison
STAGES = {
    "sweep": "sweep of 13 learning rates",
    "refit": "refit",
    "logistic": "logistic regression",
}
NOTES = [
    "The whole of `convit-ssl linear` on features that are already extracted: choosing the "
    "head on held-out images, training it again on all of them, and logistic regression with "
    "six penalties. The features are synthetic: each class has a centre, and channels are "
    "correlated and have unequal spread.",
    '"One by one" trains all heads together, one matrix product per step, without merging '
    "steps, as is done with few classes. Its time is extrapolated from some of the steps, or "
    "measured in full with --whole. CPU time divided by threads is what the probe would take "
    "on idle cores, apart from waiting. Differences in accuracy are over all 13 heads, on the "
    "held-out images.",
]


def made_features(
    rows: int, classes: int, width: int, spread: float = 2.5
) -> tuple[FeatureSet, FeatureSet]:
    """Train, and a quarter as many images of val."""
    generator = np.random.default_rng(0)
    spectrum = np.arange(1, width + 1) ** -0.5
    basis, _ = np.linalg.qr(generator.standard_normal((width, width)))
    centres = generator.standard_normal((classes, width)) * spectrum
    sets = []
    for count in (rows, max(rows // 4, classes)):
        targets = np.arange(count) % classes
        noise = spread * spectrum * generator.standard_normal((count, width))
        features = ((centres[targets] + noise) @ basis).astype(np.float32)
        sets.append(FeatureSet(features, targets))
    return sets[0], sets[1]


def measure(rows: int, classes: int, width: int, whole: bool) -> dict[str, Any]:
    """Run the probe once.

    Args:
        rows: images of train.
        classes: of which each has as many images.
        width: channels.
        whole: also train the sweep step by step, all of it.
    """
    train, val = made_features(rows, classes, width)
    config = LinearConfig()
    began, cpu = time.perf_counter(), time.process_time()
    stages, last = dict.fromkeys(STAGES, 0.0), began
    with progress_bar("bench linear", "steps") as bar:

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal last
            now = time.perf_counter()
            stages[stage] += now - last
            last = now
            if bar is not None:
                bar(done, total, stage)

        found = evaluate_linear(train, val, config, device="cpu", progress=progress)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "probe": {"rows": rows, "classes": classes, "width": width, "whole": whole},
        "threads": torch.get_num_threads(),
        "rows": {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "stages": stages,
            "accuracy": found.accuracy.value,
            "learning_rate": found.head.learning_rate,
            "logistic": None if found.logistic is None else found.logistic.value,
            "one_by_one": _one_by_one(train, config, found.sweep, whole),
        },
    }


def _one_by_one(
    train: FeatureSet, config: LinearConfig, sweep: dict[Head, float], whole: bool
) -> dict[str, Any]:
    """All heads in one product, every step: its seconds, and what differs in the end."""
    fit, held = hold_out(train.targets, config.hold_out, config.seed)
    data = ProbeData(train, tuple(train.columns), fit, device="cpu")
    heads = list(sweep)
    linear = LinearHeads(heads, dict(data.widths()), train.num_classes)
    steps = config.iterations(len(fit))
    taken = steps if whole else min(TIMED, steps)
    began, cpu = time.perf_counter(), time.process_time()
    with onednn_products():  # as the sweep does
        train_heads(
            linear, data, fit, train.targets, iterations=taken, batch_size=config.batch_size,
            momentum=config.momentum, seed=config.seed,
        )  # fmt: skip
    longer = steps / taken
    made: dict[str, Any] = {
        "seconds": (time.perf_counter() - began) * longer,
        "cpu_seconds": (time.process_time() - cpu) * longer,
        "steps": steps,
        "timed_steps": taken,
    }
    if whole:
        accuracies, _ = linear.score(data, held, train.targets)
        ours = torch.tensor([sweep[head] for head in heads], dtype=torch.float64)
        made["largest_difference"] = float((accuracies - ours).abs().max())
        made["its_choice"] = heads[int(accuracies.argmax())].learning_rate
    return made


def table(comparison: dict[str, Any]) -> TableOf:
    """Seconds of each part, and of the sweep step by step."""
    probe, rows = comparison["probe"], comparison["rows"]
    other = rows["one_by_one"]
    threads = comparison["threads"]
    lines = [[name, f"{rows['stages'][key]:.1f}"] for key, name in STAGES.items()]
    lines.append(["the whole probe", f"{rows['seconds']:.1f}"])
    lines.append(["- its CPU time / threads", f"{rows['cpu_seconds'] / threads:.1f}"])
    exactly = "" if probe["whole"] else f", from {other['timed_steps']} steps"
    lines.append([f"the sweep, all steps one by one{exactly}", f"{other['seconds']:.0f}"])
    lines.append(["- its CPU time / threads", f"{other['cpu_seconds'] / threads:.0f}"])
    lines.append(["accuracy, %", f"{100 * rows['accuracy']:.2f}"])
    lines.append(["its learning rate", f"{rows['learning_rate']:g}"])
    if probe["whole"]:
        lines.append(["learning rate chosen one by one", f"{other['its_choice']:g}"])
        apart = 100 * other["largest_difference"]
        lines.append(["largest difference of any head, held out, points", f"{apart:.2f}"])
    if rows["logistic"] is not None:
        lines.append(["accuracy of logistic regression, %", f"{100 * rows['logistic']:.2f}"])
    title = (
        f"Linear probe: {probe['rows']:,} features of {probe['width']} channels, "
        f"{probe['classes']:,} classes, {threads} threads"
    )
    return title, ("", "seconds"), lines
