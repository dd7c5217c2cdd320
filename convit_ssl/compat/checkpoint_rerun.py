"""A run restarted in a folder that contains only its final checkpoint.

Broke: with CHECKPOINT.OVERWRITE_EXISTING the final checkpoint is skipped, but the link
    ``checkpoint.torch`` still counts as one, so ``<folder>/None`` is loaded and the run
    fails with ``'NoneType' object has no attribute 'setdefault'``.
Since: always
Upstream: vissl/utils/checkpoint.py:624
Goes when: VISSL returns None where it finds no file to resume from.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import wrap


def apply(module: ModuleType) -> None:
    """Let ``get_resume_checkpoint`` return None, so that training starts from the beginning."""
    wrap(module, "get_resume_checkpoint", _without_none)


def _without_none(get_resume_checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    def resume_checkpoint(cfg: Any, checkpoint_folder: str) -> str | None:
        path: str | None = get_resume_checkpoint(cfg, checkpoint_folder)
        return None if path is None or os.path.basename(path) == "None" else path

    return resume_checkpoint
