"""Shims that let VISSL 0.1.6 (2021) run on current versions of Python, torch, numpy and Pillow.

One file per upstream breakage. ``install()`` only registers them: each is loaded and applied
when the module it fixes is imported. Call it before the first import of VISSL. The table of
all shims is docs/COMPAT.md; ``python -m convit_ssl.compat`` prints it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import warnings
from functools import cache
from types import ModuleType
from typing import Any

from convit_ssl.compat._hooks import (
    After,
    During,
    Fill,
    after_import,
    during_import,
    provide_module,
)
from convit_ssl.errors import UserError

__all__ = ["AFTER", "AROUND", "PROVIDED", "install", "install_torchvision", "require_vissl"]

# Shim (a module of this package with apply(module)) -> the modules it fixes, once imported.
AFTER: dict[str, tuple[str, ...]] = {
    "collections_aliases": ("collections",),
    "numpy_aliases": ("numpy",),
    "kinetics400": ("torchvision.datasets.kinetics",),
    "fromarray_mode": ("PIL.Image",),
    "posterize": ("vissl.data.ssl_transforms.rand_auto_aug", "timm.data.auto_augment"),
    "checkpoint_link": ("vissl.utils.io",),
    "checkpoint_rerun": ("vissl.utils.checkpoint",),
    "checkpoint_atomic": ("classy_vision.generic.util",),
    "checkpoint_types": ("classy_vision.generic.util", "vissl.utils.cluster_utils"),
    "wrapper_state": ("classy_vision.models.classy_model",),
    "environment_dump": ("vissl.utils.env",),
    "resize_larger_side": ("vissl.data.ssl_transforms.img_pil_resize_larger_side",),
    "svm_average_precision": (
        "vissl.utils.svm_utils.svm_trainer",
        "vissl.utils.svm_utils.svm_low_shot_trainer",
    ),
    "launcher_interrupt": ("vissl.utils.distributed_launcher",),
    "profiler_restart": ("vissl.utils.profiler",),
    "amp_on_cpu": ("vissl.trainer.train_task",),
    "sync_bn_on_cpu": ("vissl.hooks.swav_momentum_hooks", "vissl.hooks.dino_hooks"),
    "deepcluster_on_cpu": ("vissl.losses.deepclusterv2_loss",),
    "apex_amp": ("vissl.trainer.train_task",),
    "apex_larc": ("classy_vision.optim.sgd", "vissl.trainer.train_task"),
    "optimizer_compiler": ("torch.optim",),
}
# Shim (with around(module), a context manager) -> the modules it fixes while they are imported.
AROUND: dict[str, tuple[str, ...]] = {
    "torchvision_ops": ("torchvision._meta_registrations",),
    "torchvision_compiler": ("torchvision.ops.roi_align",),
    "jit_script_warning": ("fvcore.nn.focal_loss",),
    "video_warnings": (
        "torchvision.transforms._transforms_video",
        "torchvision.transforms._functional_video",
    ),
}
# Shim (with fill(module)) -> the module that it replaces if that is not installed.
PROVIDED: dict[str, str] = {
    "pkg_resources_stub": "pkg_resources",
}


def install() -> None:
    """Register every shim. Idempotent; imports nothing beyond the standard library."""
    for shim, targets in AFTER.items():
        for target in targets:
            after_import(target, _after_hook(shim))
    for shim, targets in AROUND.items():
        for target in targets:
            during_import(target, _around_hook(shim))
    for shim, name in PROVIDED.items():
        provide_module(name, _fill_hook(shim))


def install_torchvision() -> None:
    """Register only what `import torchvision` needs; see `convit_ssl.compat.environment`."""
    for target in AROUND["torchvision_ops"]:
        during_import(target, _around_hook("torchvision_ops"))


def require_vissl() -> None:
    """Raise an error that says how to install VISSL if it is missing.

    Raises:
        UserError: VISSL cannot be found.
    """
    if "vissl" in sys.modules or importlib.util.find_spec("vissl") is not None:
        return
    raise UserError(
        "VISSL is not installed. Its metadata pins packages of 2021 that no longer build, so "
        "it is installed without them, after the ordinary requirements (see README.md):\n"
        "    pip install --no-deps vissl==0.1.6"
    )


def _load(shim: str) -> Any:
    return importlib.import_module(f"{__name__}.{shim}")


# One function per shim, so that registering it again is recognised as the same.
@cache
def _after_hook(shim: str) -> After:
    def apply(module: ModuleType) -> None:
        try:
            _load(shim).apply(module)
        except AttributeError as error:
            # A version that the shims were not written for: it may work without them.
            warnings.warn(
                f"convit_ssl.compat.{shim} does not fit this {module.__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )

    return apply


@cache
def _around_hook(shim: str) -> During:
    def around(module: ModuleType) -> contextlib.AbstractContextManager[None]:
        manager: contextlib.AbstractContextManager[None] = _load(shim).around(module)
        return manager

    return around


@cache
def _fill_hook(shim: str) -> Fill:
    def fill(module: ModuleType) -> None:
        _load(shim).fill(module)

    return fill
