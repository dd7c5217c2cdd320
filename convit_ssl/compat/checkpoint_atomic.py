"""Writing a checkpoint.

Broke: the file is written in place, although a comment says otherwise: a kill or a full disk
    leaves a truncated checkpoint, which cannot be resumed from.
Since: always
Upstream: classy_vision/generic/util.py:350
Goes when: ClassyVision writes to a temporary file and renames it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import replace


def save_checkpoint(
    checkpoint_folder: str, state: Any, checkpoint_file: str = "checkpoint.torch"
) -> str:
    """Write ``state`` to the folder: the file is either whole and new, or untouched.

    Each rank has one temporary file, under a name that VISSL does not take for a checkpoint. If a
    kill leaves it behind, it is never resumed from, and the next save overwrites it.
    """
    import torch
    from iopath.common.file_io import g_pathmgr

    path = f"{checkpoint_folder}/{checkpoint_file}"
    try:
        g_pathmgr.mkdirs(checkpoint_folder)
        if "://" in checkpoint_folder:
            with g_pathmgr.open(path, "wb") as file:
                torch.save(state, file)
            return path
        unfinished = os.path.join(checkpoint_folder, f".saving_rank{os.environ.get('RANK', 0)}.tmp")
        try:
            with open(unfinished, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(unfinished)
            raise
    except BaseException:
        logging.warning(f"Unable to write checkpoint to {checkpoint_folder}", exc_info=True)
        raise
    return path


def apply(module: ModuleType) -> None:
    """Replace ``classy_vision.generic.util.save_checkpoint``."""
    replace(module, "save_checkpoint", save_checkpoint)
