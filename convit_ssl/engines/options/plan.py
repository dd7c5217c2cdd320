"""From an experiment as written to one that can run: the data, the machine, the numbers."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convit_ssl.data import ImageFiles, open_dataset
from convit_ssl.data.augment.own import check_own
from convit_ssl.data.listing.division import DivisionSpec
from convit_ssl.data.loading.paths import is_url
from convit_ssl.data.opening import open_division
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.engines.launch.placement import Placement, choose_precision, place
from convit_ssl.engines.memory.size import Memory
from convit_ssl.engines.options.channels import channel_facts, check_channels, choose_channels
from convit_ssl.engines.options.compose import Composed
from convit_ssl.engines.options.draft import Draft
from convit_ssl.engines.options.first_start import find_begun
from convit_ssl.engines.options.pixel_ranges import OPTIONS, check_ranges, choose_ranges
from convit_ssl.engines.options.ranges import check_values
from convit_ssl.engines.options.scaling import scale
from convit_ssl.engines.options.starting_weights import check_teacher, follow_weights
from convit_ssl.engines.options.teacher import choose_teacher
from convit_ssl.engines.options.testing import test_interval
from convit_ssl.engines.options.trunks import (
    check_other,
    check_variant,
    exact_precision,
    fit_probes,
    network_config,
    patch_size,
    sides_of,
)
from convit_ssl.errors import UserError, coded
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.methods import (
    Choice,
    LabelledOptions,
    SupervisedOptions,
    get_method,
    options_of,
)
from convit_ssl.models.trunks import AnyConfig
from convit_ssl.runs import RunFolder
from convit_ssl.schema_resolved import Derived, Resolved

TEST_ONCE = 1_000_000  # epochs between tests: after the last one alone
WITHOUT_FOLDER = ("digits", "mnist5k", "textures")  # data sets that read nothing of the user's


@dataclass
class Plan:
    """A run that is ready to start.

    Attributes:
        config: VISSL's whole configuration, resolved; ours is under ``config.CONVIT_SSL``.
        options: ours, resolved.
        placement: where the processes go.
        trunk: the network.
        choices: what was set from the data, with reasons.
        facts: the data in numbers, for the screen and the checkpoint.
        arguments: of the command line.
        notes: what somebody should know of the images, in sentences.
        memory: what a process will take at its peak, where that was estimated.
        race: what chose the method, where ``config=convit_auto`` did.
    """

    config: dict[str, Any]
    options: dict[str, Any]
    placement: Placement
    trunk: AnyConfig
    choices: dict[str, Choice]
    facts: dict[str, Any]
    arguments: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    memory: Memory | None = None
    race: dict[str, Any] | None = None

    @cached_property
    def settings(self) -> Resolved:
        """The options as attributes with their types, as they are when this is first asked for."""
        return cast("Resolved", OmegaConf.create(self.options))

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return RunFolder.of(self.settings.run).path


def make_plan(composed: Composed) -> Plan:
    """Look at the data and the machine, and work out every number.

    Raises:
        UserError: data that is missing, empty or too little, a device that is absent, sizes that
            do not fit.
    """
    tree = composed.tree
    with coded("options"):
        check_values(tree)
        check_ranges(tree)
        check_channels(tree, composed.explicit)
        check_variant(tree)
    placement = place(tree.run, tree.data.workers)
    asked = tree.run.precision
    tree.run.precision = choose_precision(asked, placement.device)
    if tree.run.fsdp:
        _check_fsdp(tree)
    _check_folder(tree)
    split = _check_division(tree)
    follow_weights(tree, composed.explicit)
    choose_teacher(tree)
    with coded("options"):
        check_other(tree, composed.explicit)
    with coded("data"):
        train = _open(tree, "train")
    method = get_method(tree.method.name)
    labelled = method.labelled
    tested = _check_labels(tree, train) if labelled else 0.0
    tree.run.dir = tree.run.dir or os.path.join(tree.run.root, tree.run.name or default_name(tree))
    resumed = None if tree.run.overwrite else Path(tree.run.dir)
    notes = choose_ranges(tree, train, resumed)
    channels = choose_channels(tree, train, resumed, composed.explicit)
    choices: dict[str, Choice] = {}
    budget = None
    if tree.scale_to_data:
        before = None if tree.run.overwrite else find_begun(Path(tree.run.dir), len(train))
        size = train.native_size()
        choices, budget = scale(tree, composed.explicit, len(train), size, before, tested)
    _check_views(tree, composed.explicit)
    facts = {**_facts(tree, train), **channel_facts(tree, channels)}
    if split is not None:
        facts["split"] = split
    _derive(tree, placement, facts, labelled)
    tree.derived.budget = None if budget is None else dataclasses.asdict(budget)
    trunk = network_config(tree, composed.explicit)
    fit_probes(tree, trunk)
    if not method.frozen_trunk:
        tree.run.precision = exact_precision(
            asked, tree.run.precision, trunk, sides_of(tree.crops), placement.device
        )
    try:
        OmegaConf.resolve(tree)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration does not resolve: {error}") from None
    options = cast("dict[str, Any]", OmegaConf.to_container(tree))
    config: dict[str, Any] = options.pop("config")
    options["facts"] = facts
    config["CONVIT_SSL"] = options
    return Plan(config, options, placement, trunk, choices, facts, composed.arguments, notes)


def _check_folder(tree: Draft) -> None:
    """Make the folder of the images absolute: it is read from other folders later."""
    if tree.data_dir and tree.data.name in WITHOUT_FOLDER:
        raise UserError(
            f"data={tree.data.name} is built in and does not use data_dir={tree.data_dir}; leave "
            f"data_dir out, or use data=folder for your own images"
        )
    if tree.data_dir and not is_url(tree.data_dir):
        tree.data_dir = os.path.abspath(os.path.expanduser(tree.data_dir))


def _facts(tree: Draft, train: ImageFiles) -> dict[str, Any]:
    """What is known of the images that are trained on."""
    return {
        "name": tree.data.name,
        "folder": str(train.root),
        "images": len(train),
        "classes": len(train.classes),
        "native_size": list(train.native_size()),
        "grey": train.is_grey(),
        **{name: _plain(getattr(tree.data, name)) for name in OPTIONS},
        "digest": train.digest(),
        "subset": tree.data.subset,
    }


def _plain(value: Any) -> Any:
    return list(value) if OmegaConf.is_list(value) else value


def _check_fsdp(tree: Draft) -> None:
    method = options_of(tree.method)
    ema = method.ema if isinstance(method, SupervisedOptions) else None
    clashing = {
        "run.compile=true": tree.run.compile,
        "run.precision=fp16": tree.run.precision == "fp16",
        "method.ema": ema is not None,
        "optim.name=muon": tree.optim.name == "muon",
        "config=convit_linear": get_method(tree.method.name).frozen_trunk,
    }
    found = [name for name, clashes in clashing.items() if clashes]
    if found:
        raise UserError(
            f"run.fsdp=true cannot be combined with {' and '.join(found)}; leave it out, or save "
            f"memory with "
            "run.precision=bf16, run.grad_checkpointing=true or optim.accumulate"
        )


def _open(tree: Draft, split: str) -> ImageFiles:
    with progress_bar("listing the images", "images"):  # built-in ones may be drawn first
        return open_dataset(
            tree.data.name,
            tree.data_dir,
            split,
            subset=tree.data.subset,
            max_corrupt=tree.data.max_corrupt,
            division=division_spec(tree),
            reading=Reading.of(tree.data),
        )


def division_spec(tree: Draft) -> DivisionSpec:
    """How an experiment's images are divided; images without a label serve pretraining alone."""
    return DivisionSpec.of(tree.data, not get_method(tree.method.name).labelled)


def _check_division(tree: Draft) -> str | None:
    """The digest of the division; None without one.

    Raises:
        UserError: the images cannot be divided as asked, or nothing says how.
    """
    for name in ("labels", "split"):  # both are files, read from other folders later
        given = getattr(tree.data, name)
        path = str(given or "").rpartition(":")[0] if name == "labels" else given
        if path and path not in ("folder", "name") and os.path.isfile(os.path.expanduser(path)):
            full = os.path.abspath(os.path.expanduser(path))
            setattr(tree.data, name, full + str(given)[len(path) :])
    spec = division_spec(tree)
    if not spec:
        return None
    spec.check()
    if not spec.divides:
        return None
    return open_division(tree.data.name, tree.data_dir, spec).digest()


def _check_labels(tree: Draft, train: ImageFiles) -> float:
    """A labelled experiment needs classes, and a val folder with the same ones.

    Chooses how often val is tested. Returns how many images that is per epoch.
    """
    if not train.labelled or len(train.classes) < 2:
        raise UserError(
            f"{tree.experiment} needs labels, but {train.root} holds {len(train.classes)} class "
            f"folders. Put the images of each class into their own folder (train/<class>/ and "
            f"val/<class>/), give data.labels=table.csv:file,label, or use config=convit_dino, "
            f"which needs no labels"
        )
    try:
        val = _open(tree, "val")
    except UserError as error:
        if "no val/ folder" not in str(error):
            raise
        raise UserError(
            f"{train.root} has no val/ folder, so there is nothing to test on: hold out part of "
            f"the images with data.holdout=0.2 (with data.group_by=folder:1, column:NAME or "
            f"name:REGEX if images belong together), or add val/<class>/"
        ) from None
    for images in (train, val):
        _check_every_label(tree, images)
    method = options_of(tree.method)
    assert isinstance(method, LabelledOptions)
    every = method.test_every
    if every is None and division_spec(tree).divides:
        every = TEST_ONCE
    if every is None:
        every = test_interval(len(train), len(val), tree.method.name)
    OmegaConf.update(tree, "method.test_every", every)
    if isinstance(method, SupervisedOptions):
        check_teacher(method.distill_from, len(train.classes), tree.teacher_settings)
    if method.num_classes not in (None, len(train.classes)):
        raise UserError(
            f"method.num_classes={method.num_classes}, but {train.root} has "
            f"{len(train.classes)} classes; leave it out to use the number found"
        )
    return float(len(val) / every)


def _check_every_label(tree: Draft, images: ImageFiles) -> None:
    bare = int(np.count_nonzero(np.asarray(images.targets) < 0))
    if bare:
        raise UserError(
            f"{tree.experiment} learns from labels, but {bare:,} of {len(images):,} images of "
            f"{images.root} have none (-1); leave them out of the list, or pretrain on all of "
            "them with config=convit_dino"
        )


def _check_views(tree: Draft, explicit: frozenset[str]) -> None:
    with coded("options"):
        check_own(tree.augmentation.own, str(tree.augment))
    patch = patch_size(tree, explicit)
    for name in ("global_size", "local_size"):
        side = getattr(tree.crops, name)
        if name == "local_size" and not tree.crops.local_count:
            continue
        if side < patch or side % patch:
            below = max(side // patch, 1) * patch
            raise UserError(
                f"crops.{name}={side} is not a multiple of trunk.patch_size={patch}; use {below} "
                f"or {below + patch}"
            )


def _check_frozen(tree: Draft) -> None:
    """Refuse a trunk that would never learn, or that would stay at random weights for a while.

    Raises:
        UserError: which, and the way out.
    """
    frozen, epochs = tree.optim.freeze_epochs, tree.optim.epochs
    if not frozen:
        return
    if frozen >= epochs:
        raise UserError(
            f"optim.freeze_epochs={frozen:g} of optim.epochs={epochs}: the trunk would never be "
            "trained; give fewer"
        )
    if not tree.weights and not tree.trunk.pretrained:
        raise UserError(
            f"optim.freeze_epochs={frozen:g} keeps the trunk at its starting weights, and this run "
            "starts from random ones; give weights=..., or trunk.pretrained for a network of timm"
        )


def _derive(tree: Draft, placement: Placement, facts: dict[str, Any], labelled: bool) -> None:
    """Absolute numbers for VISSL from epochs, rates per 256 images, and the world size."""
    optim, world = tree.optim, placement.world_size
    images = facts["images"]
    if world > images:
        raise UserError(
            f"{world} processes for {images} images: use at most {images} (run.processes)"
        )
    method = options_of(tree.method)
    frozen = method.freeze_trunk_epochs if isinstance(method, SupervisedOptions) else 0
    if frozen and frozen >= optim.epochs:
        raise UserError(
            f"method.freeze_trunk_epochs={frozen:g} of optim.epochs={optim.epochs}: the trunk "
            f"would never be trained; give fewer, or train a linear probe (config=convit_linear)"
        )
    _check_frozen(tree)
    if optim.batch_size > images:
        raise UserError(
            f"optim.batch_size={optim.batch_size} is more than the {images} images of "
            f"{facts['folder']}; use at most {images}"
        )
    if optim.batch_size % (world * optim.accumulate):
        fitting = max(optim.batch_size // (world * optim.accumulate), 1) * world * optim.accumulate
        raise UserError(
            f"optim.batch_size={optim.batch_size} is not divisible by {world} processes x "
            f"{optim.accumulate} parts (optim.accumulate); use {fitting}"
        )
    batch = optim.batch_size // world
    decay_end = optim.weight_decay if optim.weight_decay_end is None else optim.weight_decay_end
    if labelled:
        meters = {"names": ["convit_ssl_accuracy"], "convit_ssl_accuracy": {}}
        OmegaConf.update(tree, "config.METERS", meters, force_add=True)
    optim.warmup_epochs = min(optim.warmup_epochs, optim.epochs)
    tree.derived = Derived(
        world_size=world,
        processes=placement.processes,
        machine_device="gpu" if placement.device == "cuda" else "cpu",
        backend=placement.backend,
        workers=placement.workers,
        pin_memory=placement.device == "cuda",
        batch_per_process=batch,
        steps_per_epoch=images // optim.batch_size,
        lr=optim.lr * optim.batch_size / 256,
        weight_decay_end=decay_end,
        optimizer=f"convit_ssl_{optim.name}",
        num_classes=facts["classes"],
        num_images=images,
        test_model=labelled,
    )


def default_name(tree: Draft) -> str:
    """Name of the run folder: experiment, data and trunk."""
    return f"{tree.experiment}_{tree.data.name}_{tree.trunk.variant}"
