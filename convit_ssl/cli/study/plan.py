"""The study that the arguments of ``convit-ssl study`` describe."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.data import open_dataset
from convit_ssl.engines.options.compose import compose_experiment, group_names
from convit_ssl.engines.options.words import hint
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.fingerprint import file_fingerprint
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.studies import design as study
from convit_ssl.export import load_trunk
from convit_ssl.export.load import describe, shape
from convit_ssl.export.sources import locate
from convit_ssl.methods.scale_tables import PLAIN_BELOW, PLAIN_RECIPE
from convit_ssl.models import VARIANTS, create_config
from convit_ssl.reading import read_record
from convit_ssl.weights_settings import loading_options


def plan(args: argparse.Namespace) -> study.Study:
    """The study that the arguments describe; checks what can be checked before it starts.

    Raises:
        UserError: data that is not there, a batch that does not fit, unknown trunks, sizes or
            presets.
    """
    for trunk in args.trunks:
        if trunk not in (known := group_names("trunk")):
            near = hint(trunk, known)
            raise UserError(f"--trunks: unknown {trunk!r}{near} (available: {', '.join(known)})")
    seeds = range(args.seeds)
    division = division_options.spec_of(args)
    train = open_dataset(
        args.data, args.data_dir, "train", subset=whole(args), division=division or None
    )
    if not train.labelled:
        raise UserError(
            f"a study measures accuracy, but the images of {train.root} have no labels. Put the "
            f"images of each class into their own folder: train/<class>/ and val/<class>/"
        )
    settings = study.Settings(
        args.data,
        args.data_dir,
        args.epochs,
        args.batch_size,
        args.run,
        not args.no_scale_epochs,
        (
            *_recipe(len(train) < PLAIN_BELOW or args.run == "cpu"),
            *division_options.overrides(args),
            *(f"convit_finetune:{word}" for word in weights_options.overrides(args)),
            *args.set,
        ),
        args.images_per_class,
    )
    if args.kind == "sample-efficiency":
        fractions = args.fractions or study.FRACTIONS
        weights = dict(_pair(text) for text in args.weights)
        planned = study.sample_efficiency(
            args.trunks, settings, fractions, seeds, weights, not args.no_scratch
        )
    elif args.kind == "pretraining":
        planned = study.pretraining(args.trunks, args.methods, settings, seeds)
    else:
        fractions = args.fractions or (0.1,)
        if f"convit_{args.size}" not in VARIANTS or f"deit_{args.size}" not in VARIANTS:
            raise UserError(f"unknown size {args.size!r}; use nano, tiny, small or base")
        depth = VARIANTS[f"convit_{args.size}"].depth
        planned = study.ablation(args.size, settings, args.presets, fractions, seeds, depth)
    study.check_batch(settings, len(train), planned.fractions)
    checkpoints = {arm.weights for arm in planned.arms if arm.weights}
    _check_weights(planned, loading_options(weights_options.settings_of(args)))
    return dataclasses.replace(
        planned,
        images=train.digest(),
        weights={path: _file_hash(path) for path in checkpoints},
    )


def _recipe(plain: bool) -> list[str]:
    """How images with labels are shown: the same at every share, which each run alone would not do.

    Args:
        plain: as to few images or in short runs; otherwise as published.
    """
    words: list[str] = []
    for experiment in ("convit_supervised", "convit_finetune"):
        published = compose_experiment([f"config={experiment}"]).tree.method
        for name, little in PLAIN_RECIPE.items():
            value = little if plain else getattr(published, name)
            text = "null" if value is None else value
            words.append(f"{experiment}:method.{name}={text}")
    return words


def _check_weights(planned: study.Study, settings: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another network before the first run."""
    if any(re.match(r"(\w+:)?trunk\.", word) for word in planned.runs[0].settings.overrides):
        return  # training compares what is given
    for arm in planned.arms:
        if not arm.weights:
            continue
        model = load_trunk(arm.weights, **settings)
        held, asked = model.config, create_config(arm.trunk)
        if shape(held) != shape(asked):
            raise UserError(
                f"--checkpoints {arm.trunk}={arm.weights}: it holds {describe(held)}, "
                f"not {arm.trunk}"
            )


def _file_hash(path: str) -> str:
    file = locate(path)
    return file_fingerprint(file) if isinstance(file, Path) else path


def refuse_other_settings(
    path: Path, asked: Mapping[str, Any], folder: Path, about: Mapping[str, Any] | None = None
) -> None:
    """Write down the settings of a study, or compare them with those that its folder began with.

    Args:
        path: of the record.
        asked: settings that every start of a study shares.
        folder: of the study, for the message.
        about: what is recorded beside them.

    Raises:
        UserError: the folder holds a study of other settings.
    """
    if path.exists():
        before = read_record(path)
        changed = [name for name in asked if before.get(name) != asked[name]]
        if changed:
            raise UserError(
                f"{folder} holds a study with different {', '.join(changed)}; give this one "
                f"another --out"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json({**asked, **(about or {})}, path)


def whole(args: argparse.Namespace) -> str | None:
    """The images that are the study's 100 %, those of the first seed; None for all."""
    few = args.images_per_class
    return None if few is None else f"per_class={few},seed=0"


def _pair(text: str) -> tuple[str, str]:
    trunk, equals, path = text.partition("=")
    if not equals or not Path(path).exists():
        raise UserError(
            f"--checkpoints takes TRUNK=CKPT with an existing file or run, found {text!r}"
        )
    return trunk, path
