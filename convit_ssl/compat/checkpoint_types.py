"""Loading a checkpoint without executing code from it.

Broke: ``torch.load`` accepts tensors and plain values only (``weights_only=True``), so VISSL's
    own files, which contain its configuration (``AttrDict``) or numpy scalars, fail to load.
Since: torch 2.6
Upstream: classy_vision/generic/util.py:280, classy_vision/generic/distributed_util.py:280,
    vissl/utils/checkpoint.py:282, vissl/utils/cluster_utils.py:45
Goes when: VISSL saves nothing but tensors and plain values.
"""

from __future__ import annotations

import errno
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import wrap
from convit_ssl.errors import UserError

TRUNCATED = re.compile(r"PytorchStreamReader|zip archive|invalid load key|^$")
# Raised when the bytes are not a pickle.
GARBAGE = (EOFError, KeyError, IndexError, UnicodeDecodeError, struct.error)
BROKEN = (
    "{path} is not a complete checkpoint: writing was interrupted, or it is another kind of file. "
    "Delete or move it, and the run resumes from the previous checkpoint, if there is one."
)
REFUSED = """{path} holds a Python object of type {kind}. \
Loading it could run code hidden in the file, so it is refused. If you trust where the file \
comes from, write its weights alone to a new file once:
    import torch
    checkpoint = torch.load({path!r}, weights_only=False)
    torch.save({{"classy_state_dict": checkpoint["classy_state_dict"]}}, "weights.torch")"""


class AttrDictInFile:
    """What an ``AttrDict`` is loaded as: an ordered dict, the only kind that torch fills."""

    def __new__(cls) -> Any:
        """An empty ordered dict."""
        return OrderedDict()


def apply(module: ModuleType) -> None:
    """Allow the harmless types that VISSL saves, and name the type that is refused."""
    if module.__name__ == "classy_vision.generic.util":
        _allow()
        wrap(module, "load_checkpoint", _refuse_plainly)
    else:
        wrap(module.ClusterAssignmentLoader, "load_cluster_assigment", _with_attributes)


def _allow() -> None:
    import numpy as np
    import torch

    scalar: Any = np._core.multiarray.scalar if hasattr(np, "_core") else np.core.multiarray.scalar  # type: ignore[attr-defined]
    torch.serialization.add_safe_globals(
        [
            (AttrDictInFile, "vissl.config.attr_dict.AttrDict"),
            (scalar, "numpy.core.multiarray.scalar"),
            (scalar, "numpy._core.multiarray.scalar"),
            np.dtype,
            *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
        ]
    )


def _with_attributes(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_cluster_assignment(file_path: str) -> Any:
        from vissl.config.attr_dict import AttrDict

        assignment = load(file_path)
        assignment.config = AttrDict(assignment.config)
        return assignment

    return load_cluster_assignment


def _refuse_plainly(load_checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    def load(checkpoint_path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return load_checkpoint(checkpoint_path, *args, **kwargs)
        except (pickle.UnpicklingError, RuntimeError, OSError, *GARBAGE) as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            if found is not None:
                raise UserError(REFUSED.format(path=checkpoint_path, kind=found[1])) from error
            if _is_broken(error):
                raise UserError(BROKEN.format(path=checkpoint_path)) from error
            raise

    return load


def _is_broken(error: Exception) -> bool:
    if isinstance(error, OSError):  # torch seeks to before the start of a cut-off zip file
        return error.errno == errno.EINVAL
    return isinstance(error, GARBAGE) or TRUNCATED.search(str(error)) is not None
