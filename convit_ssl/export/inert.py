"""Hyper-parameters in a checkpoint, as plain data: nothing of another package is ever called.

Training tools leave their settings beside the weights: an `argparse.Namespace`, OmegaConf nodes,
paths, enums, classes of their own. PyTorch's restricted unpickler refuses all of them. Here each
such name is bound to an empty class of this module, so that the unpickler builds a record of what
was there (name, arguments, attributes) and imports and calls nothing. Names outside of the known
containers and of the known training tools stay refused.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convit_ssl.reading import DEEPEST, MOST_VALUES, utf8_place

# Most distinct names that one file may need; tools need up to about 20.
_MOST_NAMES = 128
_PICKLE_LIMIT = 512 * 2**20

# Packages whose classes (names with a capital) are read as inert records.
_TOOLS = (
    "pathlib", "datetime", "enum", "typing", "decimal", "uuid", "omegaconf", "hydra", "yacs",
    "easydict", "addict", "ml_collections", "mmengine", "mmcv", "fvcore", "iopath", "pydantic",
    "jsonargparse", "PIL", "numpy", "torch", "torchvision", "torchmetrics", "albumentations",
    "lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities", "lightly",
    "lightly_train", "stable_pretraining", "solo", "timm", "transformers", "dinov2", "dinov3",
    "vissl", "classy_vision", "deepspeed", "accelerate", "__main__", "__mp_main__",
)  # fmt: skip
_NAMES = {
    "argparse.Namespace", "types.SimpleNamespace", "functools.partial", "collections.defaultdict",
    "collections.deque", "copyreg._reconstructor", "builtins.object", "builtins.slice",
    "builtins.range", "builtins.frozenset", "builtins.complex",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray",
    "datetime.datetime", "datetime.date",
    "datetime.timedelta", "datetime.timezone", "builtins.set", "builtins.list", "builtins.dict",
    "builtins.tuple", "builtins.str", "builtins.int", "builtins.float", "builtins.bool",
}  # fmt: skip
# Of these, functions, too: some tools save whole modules. They become records like the rest.
_WITH_FUNCTIONS = (
    "lightly.", "lightly_train.", "stable_pretraining.", "solo.", "timm.", "torch.nn.",
    "torch._C._nn.",
)  # fmt: skip
_NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")

# numpy's scalars are rebuilt as numbers: training scripts keep their losses as such.
_NUMBERS: list[Any] = [
    np.dtype,
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")),
]


class Inert:
    """A record of an object that was not built. Subclasses are made per name in a file.

    Attributes:
        path: the name in the file, such as ``omegaconf.dictconfig.DictConfig``.
        arguments: what it would have been called with.
        state: its attributes.
    """

    path = ""

    def __new__(cls, *arguments: Any) -> Any:
        """Record the arguments; nothing is called with them."""
        self = object.__new__(cls)
        self.arguments = arguments
        self.state = None
        return self

    def __init__(self, *arguments: Any) -> None:
        """Nothing: `__new__` has recorded the arguments."""

    arguments: tuple[Any, ...]
    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


def load_inert(path: Path) -> Any:
    """What `torch.save` wrote, with tensors on the CPU and foreign objects as `Inert` records.

    Raises:
        Exception: whatever the unpickler meets, among it a name that it refuses.
    """
    _check_archive(path)
    known: dict[str, type[Inert] | Callable[..., Any]] = {}
    for _ in range(_MOST_NAMES):
        try:
            return _load(path, known)
        except Exception as error:
            if not _learn(str(error), known):
                raise
    raise pickle.UnpicklingError(f"it needs more than {_MOST_NAMES} classes")


def plain(value: Any) -> Any:
    """Dictionaries, lists, texts and numbers in place of records; tensors become None."""
    return _Plain().of(value, 0)


def _load(path: Path, known: Mapping[str, Any]) -> Any:
    wanted = [*_NUMBERS, *((stand_in, name) for name, stand_in in known.items())]
    # What the process allows anyway is not taken from it afterwards.
    allowed = torch.serialization.get_safe_globals()
    extra = [entry for entry in wanted if entry not in allowed]
    with torch.serialization.safe_globals(extra), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mapped = zipfile.is_zipfile(path) or None
        with utf8_place(path) as place:
            return torch.load(place, map_location="cpu", weights_only=True, mmap=mapped)


def _check_archive(path: Path) -> None:
    """Refuse archives that grow when they are read; `torch.save` neither packs nor overlaps."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.filename.endswith("/constants.pkl") for member in members):
        return  # TorchScript, which torch.load refuses by its name
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise pickle.UnpicklingError("its records are packed, which torch.save never does")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise pickle.UnpicklingError("its records claim more bytes than the file has")
    for member in members:
        if member.filename.endswith("data.pkl") and member.file_size > _PICKLE_LIMIT:
            raise pickle.UnpicklingError(f"its pickle has more than {_PICKLE_LIMIT:,} bytes")


def _learn(message: str, known: dict[str, Any]) -> bool:
    """Bind the name that the unpickler stopped at. False where it is to stay refused."""
    asked = re.search(r"Unsupported global: GLOBAL (\S+) was not an allowed global", message)
    if asked:
        name = asked[1] if "." in asked[1] else f"builtins.{asked[1]}"
        if name in known or not _is_known(name):
            return False
        known[name] = type("Inert", (Inert,), {"path": name, "__qualname__": f"Inert[{name}]"})
        return True
    # A subclass of dict or list gets its items by instructions that want the very class.
    filled = re.search(
        r"Can only (SETITEM|append|extend).* but got <class '.*Inert\[(\S+)\]'>", message, re.DOTALL
    )
    if filled and isinstance(known.get(filled[2]), type):
        known[filled[2]] = _Mapping if filled[1] == "SETITEM" else _List
        return True
    return False


class _Mapping:
    def __new__(cls, *arguments: Any) -> Any:
        return OrderedDict()


class _List:
    def __new__(cls, *arguments: Any) -> Any:
        return []


def _is_known(name: str) -> bool:
    if name in _NAMES or name.startswith(_WITH_FUNCTIONS):
        return True
    package, _, rest = name.partition(".")
    return package in _TOOLS and rest.rpartition(".")[2].lstrip("_")[:1].isupper()


class _Plain:
    """One walk, which stops at the limits of all readers."""

    def __init__(self) -> None:
        self.left = MOST_VALUES

    def of(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if depth > DEEPEST or self.left < 0:
            return None
        if isinstance(value, type):
            return getattr(value, "path", "")
        if isinstance(value, Inert):
            return self._record(value, depth)
        if isinstance(value, Mapping):
            return {
                key: self.of(item, depth + 1)
                for key, item in value.items()
                if isinstance(key, (str, int))
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.of(item, depth + 1) for item in value]
        if isinstance(value, np.generic):
            return value.item()
        return None if isinstance(value, Tensor) else value

    def _record(self, record: Inert, depth: int) -> Any:
        state = record.state
        if record.path.startswith("pathlib."):
            return "/".join(map(str, record.arguments)).replace("//", "/")
        if record.path.startswith("omegaconf.") and isinstance(state, Mapping):
            for content in ("_content", "_val"):
                if content in state:
                    return self.of(state[content], depth + 1)
        if record.path in _NAMESPACES or isinstance(state, Mapping):
            return self.of(state if isinstance(state, Mapping) else {}, depth + 1)
        inside = [self.of(item, depth + 1) for item in record.arguments]
        return inside[0] if len(inside) == 1 else inside or record.path
