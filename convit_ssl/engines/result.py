"""The end of a run: its result, what was left out, and the commands that follow."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from convit_ssl.data.listing.division import DivisionSpec
from convit_ssl.data.loading.samples import FaultLog
from convit_ssl.data.opening import find_listing
from convit_ssl.engines.callbacks.console import Screen
from convit_ssl.engines.callbacks.progress import TrainingHook
from convit_ssl.engines.callbacks.val_figures import OF_A_ROW
from convit_ssl.engines.options.plan import Plan
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.fingerprint import experiment_settings, hash_json
from convit_ssl.evaluation.results import commit, hardware, now, versions, write_json
from convit_ssl.runs import RunFolder


def finish(plan: Plan, folder: Path, training: TrainingHook, screen: Screen) -> None:
    """Write `result.json`, and say on the screen what is there and what may follow.

    Raises:
        UserError: the result cannot be written.
    """
    figures = training.figures
    variant, epochs = plan.settings.trunk.variant, plan.settings.optim.epochs
    settings = hash_json(experiment_settings(plan.options))
    result = {
        "kind": "top-1 on val" if "top1" in figures else figures.get("knn_name", "online kNN"),
        "name": f"{variant} {plan.settings.method.name} epoch {epochs}",
        "experiment": plan.settings.experiment,
        "accuracy": figures.get("top1", figures.get("knn")),
        **{key: figures[key] for key in OF_A_ROW if key in figures},
        "epochs": epochs,
        "figures": figures,
        **({"verdict": figures["verdict"]} if "verdict" in figures else {}),
        **({"race": plan.race["decision"]} if plan.race is not None else {}),
        "images_per_s": figures.get("images_per_s"),
        "data": plan.facts,
        "variant": variant,
        "seed": plan.settings.seed,
        "settings_hash": settings,
        "fingerprint": {"settings": settings, "data": plan.facts["digest"]},
        "commit": commit(),
        "versions": versions(),
        "hardware": {**hardware(), "processes": plan.placement.world_size},
        "time": now(),
    }
    written = RunFolder(folder).result
    try:
        write_json(result, written)
    except UserError as error:
        with contextlib.suppress(OSError):
            written.unlink(missing_ok=True)  # of fewer epochs
        reason = getattr(error.__cause__, "strerror", None) or error
        raise UserError(
            f"training is finished, but {written} cannot be written ({reason}). "
            f"Free some space and run the same command again: it only writes the result"
        ) from None
    screen.line(f"done: {RunFolder(folder).last}", style="bold")
    for line in training.verdict_lines:
        screen.line(line)
    _note_unreadable(RunFolder(folder).unreadable, screen)
    options, facts = plan.settings, plan.facts
    where = f" --data-dir {shlex.quote(options.data_dir)}" if options.data_dir else ""
    quoted = shlex.quote(str(folder))
    following = [f"convit-ssl export {quoted} --to safetensors"]
    if facts["classes"] > 1 and not options.derived.test_model and _has_val(plan):
        following.insert(0, f"convit-ssl knn {quoted} --data {facts['name']}{where}")
    elif facts["classes"] <= 1 and not options.derived.test_model:
        following.insert(0, f"convit-ssl scores {quoted} --all")
    for words, command in zip(("next:", "     "), following, strict=False):
        screen.line(f"{words} {command}")


def _note_unreadable(log: Path, screen: Screen) -> None:
    count = len(FaultLog(log).read())
    if count:
        images, others = (
            ("image", "another in its") if count == 1 else ("images", "others in their")
        )
        screen.line(
            f"note: {count:,} unreadable {images}: training used {others} place, and no figure "
            f"counts them; listed in {log}"
        )


def _has_val(plan: Plan) -> bool:
    if DivisionSpec.of(plan.settings.data).divides:
        return True
    try:
        find_listing(plan.facts["name"], plan.settings.data_dir, "val")
    except UserError:
        return False
    return True
