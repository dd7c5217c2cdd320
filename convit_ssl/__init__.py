"""Self-supervised pretraining of ConViT (arXiv:2103.10697) in VISSL style.

`convit_ssl.train`, `embed`, `knn`, `linear`, `segment`, `retrieve`, `scores`, `check`,
`load_trunk`, `report` and `export` are the interface for scripts and notebooks; `register_method`,
`register_trunk`, `register_dataset`, `register_augmentation` and `register_evaluator` are the one
for plugins. Importing this package loads nothing heavy: each name is imported when it is used.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as in typing, whose import would take most of this package's time
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.2.0"

# Name -> module. `export` is also the package of exports, which can be called like the function.
_LAZY = {
    "CheckResult": "convit_ssl.api",
    "FeatureSet": "convit_ssl.evaluation.features.feature_set",
    "Features": "convit_ssl.api",
    "ProbeResult": "convit_ssl.api",
    "RetrieveResult": "convit_ssl.api",
    "Run": "convit_ssl.api",
    "ScoreResult": "convit_ssl.api",
    "SegmentResult": "convit_ssl.api",
    "UserError": "convit_ssl.errors",
    "check": "convit_ssl.api",
    "embed": "convit_ssl.api",
    "knn": "convit_ssl.api",
    "linear": "convit_ssl.api",
    "load_trunk": "convit_ssl.api",
    "register_augmentation": "convit_ssl.data.augment.own",
    "register_dataset": "convit_ssl.data.sources.registered",
    "register_evaluator": "convit_ssl.evaluation.probes.evaluators",
    "register_method": "convit_ssl.methods.base",
    "register_trunk": "convit_ssl.models.trunks",
    "report": "convit_ssl.api",
    "retrieve": "convit_ssl.api",
    "scores": "convit_ssl.api",
    "segment": "convit_ssl.api",
    "train": "convit_ssl.api",
}


def __getattr__(name: str) -> Any:
    if name == "export":
        return importlib.import_module("convit_ssl.export")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, "export"])
