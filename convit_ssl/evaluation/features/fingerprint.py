"""Hashes that say whether two results come from the same weights, images and transforms."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from convit_ssl.data.loading.paths import is_url
from convit_ssl.data.loading.storage import file_state, sampled_content
from convit_ssl.errors import UserError
from convit_ssl.models.fingerprint import weights_fingerprint

__all__ = [
    "LabelledImages",
    "combine",
    "data_fingerprints",
    "experiment_settings",
    "file_fingerprint",
    "hash_json",
    "transform_fingerprint",
    "weights_fingerprint",
]


SAMPLED_FILES = 256  # whose content is read for a cache's fingerprint
SAMPLED_URLS = 16


class LabelledImages(Protocol):
    """What evaluation asks of a data set; `convit_ssl.data.open_dataset` gives it."""

    @property
    def paths(self) -> Sequence[str | Path]:
        """Of all images."""

    @property
    def targets(self) -> Sequence[int]:
        """Class of each image, -1 without a label."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""

    @property
    def transform(self) -> Callable[..., Any] | None:
        """From a PIL image to what the extractor reads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, int, int]: ...


def hash_json(value: Any) -> str:
    """sha256 of a value's canonical JSON form."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def experiment_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What an experiment's weights depend on but the seed, without folders and the machine.

    Args:
        options: resolved, as a checkpoint keeps them.

    Returns:
        The options of model, data, augmentation, method and optimiser; of a subset's choice the
        seed is left out too. Runs with equal ones are repetitions of each other.
    """
    groups = ("experiment", "augment", "trunk", "crops", "augmentation", "method", "optim")
    settings = {name: options.get(name) for name in groups}
    data = options.get("data") or {}
    chosen = re.sub(r",?seed=\d+", "", str(data.get("subset") or ""))
    return {**settings, "data": data.get("name"), "subset": chosen}


def data_fingerprints(dataset: LabelledImages) -> tuple[str, str]:
    """Two sha256 of a data set: of its content, and of its files as they are here.

    The first covers the images' names, sizes in bytes and labels. Names are relative to the
    folder that all images share, so that a copy of the data on another machine has the same
    fingerprint. Bytes are not read: an ImageNet would take an hour. The second is what a cache
    goes by. It adds the times and the inode of each file, and the content of some: other images
    under the same names, sizes and times are noticed.
    """
    content, files = hashlib.sha256(), hashlib.sha256()
    paths = [str(path) for path in dataset.paths]
    root = shared_folder(paths)
    if all(os.path.dirname(path) == root for path in paths):
        root = os.path.dirname(root)  # one class alone: keep its name
    for path, target in zip(paths, dataset.targets, strict=True):
        size, *state = file_state(path)
        line = f"{os.path.relpath(path, root)}|{size}|{int(target)}\n"
        content.update(line.encode(errors="surrogateescape"))
        files.update(f"{state}|{line}".encode(errors="surrogateescape"))
    for path in _spread(paths, SAMPLED_URLS if paths and is_url(paths[0]) else SAMPLED_FILES):
        files.update(hashlib.sha256(sampled_content(path)).digest())
    classes = hash_json(list(map(str, dataset.classes))).encode()
    content.update(classes)
    files.update(classes)
    return content.hexdigest(), files.hexdigest()


def shared_folder(paths: Sequence[str | Path]) -> str:
    """The folder that holds all of them; empty without any."""
    return os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""


def _spread(paths: Sequence[str], number: int) -> list[str]:
    """A number of the paths at most, evenly spread over all of them."""
    step = max(1, -(-len(paths) // number))
    return list(paths[::step])


def transform_fingerprint(transform: Callable[..., Any] | None) -> str:
    """sha256 of what the transform makes of two fixed images.

    What it does is hashed, not how it is written: a changed default or a new version of the
    resampling counts, a renamed class does not.

    Raises:
        UserError: there is none, or two calls on one image differ. Features of random crops
            cannot be cached.
    """
    if transform is None:
        raise UserError(
            "images need a transform: open_dataset(..., transform=evaluation_transform(img_size))"
        )
    from PIL import Image

    digest = hashlib.sha256()
    for height, width in ((53, 37), (240, 320)):
        ramp = np.arange(height * width * 3, dtype=np.int64)
        pixels = ((ramp * 7919) % 251).astype(np.uint8).reshape(height, width, 3)
        first, second = (_as_array(transform(Image.fromarray(pixels))) for _ in range(2))
        if first.shape != second.shape or not np.array_equal(first, second):
            raise UserError(
                "features are extracted once, but this transform is random; use "
                "convit_ssl.data.evaluation_transform(img_size)"
            )
        digest.update(f"{first.dtype}:{first.shape};".encode())
        digest.update(np.ascontiguousarray(first).tobytes())
    return digest.hexdigest()


def file_fingerprint(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def combine(parts: Mapping[str, Any]) -> str:
    """One sha256 for several named parts."""
    return hash_json(dict(parts))


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)
