"""The probes of a pretraining study: kNN and linear, of every trunk and of the references."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit_ssl.checksums import digest_of, say_once, whole_checkpoint
from convit_ssl.cli import knn_command, linear_command
from convit_ssl.cli.probe import division as probe_division
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.study.plan import whole
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.tokens import TokenFeatures
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.row_checks import check_row
from convit_ssl.evaluation.studies.runner import State
from convit_ssl.models import ConViT
from convit_ssl.reading import read_json

PROBES = {"knn": knn_command, "linear": linear_command}
UNTRAINED = "untrained"


def probe_runs(
    states: Sequence[State], args: argparse.Namespace, out: Path
) -> list[dict[str, Any]]:
    """A row of kNN and one of the linear probe for whatever is done, each measured once.

    Besides the runs: raw pixels, and for each trunk and seed the network as it was before
    training. All read the same images of train, those of the first seed.

    Returns:
        Result rows with `features` ("raw pixels", "untrained", "dino", ...) and `trunk`.
    """
    rows = []
    done = [state for state in states if state.status == "done"]
    for kind in PROBES:
        folder = out / "probes"
        if done:
            pixels = folder / f"raw_pixels-{kind}.json"
            row = _once(pixels, kind, args, str(done[0].folder), 0, "pixels")
            rows.append({**row, "features": "raw pixels", "trunk": None})
        fresh: set[tuple[str, int]] = set()
        for state in done:
            run, checkpoint = state.run, str(state.folder)
            if (run.arm.trunk, run.seed) not in fresh:
                fresh.add((run.arm.trunk, run.seed))
                path = folder / f"{run.arm.trunk}-{UNTRAINED}-seed{run.seed}-{kind}.json"
                row = _once(path, kind, args, checkpoint, run.seed, UNTRAINED)
                name = f"{run.arm.trunk}, {UNTRAINED}"
                rows.append({**row, "name": name, "features": UNTRAINED, "trunk": run.arm.trunk})
            path = folder / f"{run.name}-{kind}.json"
            row = _once(path, kind, args, checkpoint, run.seed, "")
            features = run.arm.name.removeprefix(f"{run.arm.trunk}, ")
            found = {"name": run.arm.name, "features": features, "trunk": run.arm.trunk}
            rows.append({**row, **found})
    return rows


def _once(
    path: Path, kind: str, args: argparse.Namespace, checkpoint: str, seed: int, which: str
) -> dict[str, Any]:
    """The row of an earlier start, or measured now and kept.

    A row answers for the weights and the options it was measured with. Others of the same name,
    of a run that was trained again for one, are measured anew.
    """
    command = PROBES[kind]
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--data", args.data, "--seed", str(seed), "--cache", str(path.parent / "features")]
    words += ["--data-dir", args.data_dir] if args.data_dir else []
    subset = whole(args)
    words += ["--subset", subset] if subset else []
    if kind == "linear":
        words += ["--epochs", str(args.probe_epochs), "--no-logistic"]
    if "run.precision=bf16" in args.set:
        words += ["--precision", "bf16"]
    answers_for = {"weights": _weights(checkpoint, which), "options": words}
    kept = _kept(path)
    if kept is not None and kept.get("answers_for") == answers_for:
        return kept
    asked = parser.parse_args([checkpoint, *words])
    probe_division.prepare(asked)  # by the division that the run was trained with
    source = probe_sources.open_source(asked, "pixels" if which == "pixels" else None)
    if which == UNTRAINED:
        assert isinstance(source.extractor, TokenFeatures)
        assert isinstance(source.extractor.model, ConViT)
        source = probe_sources.untrained_like(source.extractor.model, asked)
    row: dict[str, Any] = command.measure_source(source, asked)
    row.pop("tested")
    row["answers_for"] = answers_for
    write_json(row, path)
    print(f"{path.stem}: {100 * row['accuracy']:.1f} %", flush=True)
    return row


def _weights(checkpoint: str, which: str) -> str | None:
    """What tells the weights of a run from others in the same folder.

    Raw pixels have none; an untrained network follows from the seed and the run's trunk.
    """
    if which:
        return None
    found = whole_checkpoint(Path(checkpoint))
    return digest_of(found[0] if found is not None else Path(checkpoint))


def _kept(path: Path) -> dict[str, Any] | None:
    """The row of an earlier start; None where there is none, or a damaged one."""
    if not path.exists():
        return None
    try:
        kept: dict[str, Any] = read_json(path)
        check_row(kept, path)
        return kept
    except UserError as error:
        say_once(f"warning: {error}; measuring it again")
        return None
