"""Reading a checkpoint without running what it says.

Broke: ``torch.load`` accepts tensors and plain values only (``weights_only=True``), so VISSL's
    own files that hold its configuration (``AttrDict``) or numpy numbers fail to load.
Since: torch 2.6
Upstream: classy_vision/generic/util.py:280, classy_vision/generic/distributed_util.py:280,
    vissl/utils/checkpoint.py:282
Goes when: VISSL saves nothing but tensors and plain values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import wrap
from convit_ssl.errors import UserError


def apply(module: ModuleType) -> None:
    """Allow the harmless types VISSL saves, and say plainly what is refused."""
    if module.__name__ == "vissl.config.attr_dict":
        _allow(module.AttrDict)
    else:
        wrap(module, "load_checkpoint", _refuse_plainly)


def _allow(attr_dict: type) -> None:
    import numpy as np
    import torch

    # AttrDict is a dict with attribute access: building one from a file runs nothing.
    kinds = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"}
    numpy_types = [np._core.multiarray.scalar, np.dtype, *kinds]  # type: ignore[attr-defined]
    old_name = (np._core.multiarray.scalar, "numpy.core.multiarray.scalar")  # type: ignore[attr-defined]
    torch.serialization.add_safe_globals([attr_dict, *numpy_types, old_name])


def _refuse_plainly(load_checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    import pickle

    def load(checkpoint_path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return load_checkpoint(checkpoint_path, *args, **kwargs)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            if found is None:
                raise
            raise UserError(
                f"{checkpoint_path} holds a Python object of type {found[1]}. Loading it could "
                "run code hidden in the file, so it is refused. If you trust where the file "
                "comes from, write its weights alone to a new file once:\n"
                "    import torch\n"
                f"    checkpoint = torch.load({checkpoint_path!r}, weights_only=False)\n"
                "    torch.save({'classy_state_dict': checkpoint['classy_state_dict']}, "
                "'weights.torch')"
            ) from error

    return load
