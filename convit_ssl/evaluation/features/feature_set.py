"""Features of a data set: rows of memory-mapped columns with their labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convit_ssl.checksums import digest_of, say_once
from convit_ssl.errors import UserError
from convit_ssl.reading import WEIGHTS_LIMIT, read_json, read_text, regular_file

_FILES = ("features.npy", "targets.npy", "images.json")

_LONGEST_LIST = 2 * 2**30  # bytes: paths of some ten million images


@dataclass(frozen=True)
class FeatureSet:
    """Features of a data set, one row per image that could be read.

    Attributes:
        features: (N, D), memory-mapped or in memory.
        targets: (N,), -1 for images without a label; a tensor is converted.
        paths: of the images.
        columns: name -> (first, last + 1) channel of each kind of feature.
        classes: names of the targets.
        manifest: where the features come from: fingerprints, seconds, images per second.
        unreadable: path -> reason, of the images that have no row.
        folder: where they were read from, None in memory.
    """

    features: np.ndarray[Any, Any] | Tensor
    targets: np.ndarray[Any, Any]
    paths: Sequence[str] = ()
    columns: dict[str, tuple[int, int]] = field(default_factory=dict)
    classes: Sequence[str] = ()
    manifest: dict[str, Any] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def __post_init__(self) -> None:
        if len(self.features) != len(self.targets):
            raise ValueError(f"{len(self.features)} features for {len(self.targets)} targets")
        targets = torch.as_tensor(self.targets).cpu().numpy().astype(np.int64)
        object.__setattr__(self, "targets", targets)
        if not self.columns:
            object.__setattr__(self, "columns", {"features": (0, self.features.shape[1])})

    def __len__(self) -> int:
        return len(self.features)

    @property
    def num_classes(self) -> int:
        """Classes, whether or not each has an image."""
        return max(len(self.classes), int(self.targets.max(initial=-1)) + 1)

    def column(self, name: str | None = None) -> np.ndarray[Any, Any] | Tensor:
        """(N, width) view of one kind of feature; the first by default.

        Raises:
            UserError: no column has this name.
        """
        name = next(iter(self.columns)) if name is None else name
        if name not in self.columns:
            raise UserError(f"no feature {name!r} here; choose from {', '.join(self.columns)}")
        first, last = self.columns[name]
        return self.features[:, first:last]

    def left_out(self, split: str) -> str | None:
        """A sentence about the images that have no row; None where all could be read."""
        if not self.unreadable:
            return None
        count, images = len(self.unreadable), len(self) + len(self.unreadable)
        what = "image" if count == 1 else "images"
        place = f": listed in {self.folder / 'images.json'}" if self.folder else ""
        return (
            f"{count:,} unreadable {what} of {images:,} in {split}, excluded from every "
            f"result{place}"
        )

    def labelled(self) -> np.ndarray[Any, Any]:
        """Indices of the rows that have a label.

        Raises:
            UserError: there is none.
        """
        rows = np.flatnonzero(self.targets >= 0)
        if len(rows) == 0:
            raise UserError(
                f"none of the {len(self)} images has a label, but a probe needs labels; arrange "
                f"them in one folder per class"
            )
        return rows


def load_features(folder: str | Path, verify: bool = True) -> FeatureSet:
    """Open what `extract_features` wrote; the features stay on disk.

    Args:
        folder: of one split.
        verify: compare the files with their checksums, once per process.

    Raises:
        UserError: the folder holds no complete features, or damaged ones.
    """
    folder = Path(folder)
    try:
        manifest = read_json(folder / "manifest.json")
        if verify:
            _check(folder, manifest)
        images = json.loads(read_text(folder / "images.json", _LONGEST_LIST))
        for name in ("features.npy", "targets.npy"):
            regular_file(folder / name, WEIGHTS_LIMIT)
        features = np.load(folder / "features.npy", mmap_mode="r")
        targets = np.load(folder / "targets.npy")
        columns = _columns(manifest["columns"], features.shape[1])
        bad = {entry["path"]: entry["reason"] for entry in images.get("unreadable", [])}
        return FeatureSet(
            features, targets, images["paths"], columns, images["classes"], manifest, bad, folder
        )
    except UserError as error:
        if str(error).startswith("cannot read"):
            raise UserError(f"no features in {folder}: {error}") from error
        raise
    except Exception as error:  # numpy's header is parsed as Python, with any of its errors
        known = isinstance(error, (OSError, ValueError))
        reason = error if known else f"{type(error).__name__} {error}"
        raise UserError(f"no features in {folder}: {reason}") from error


def _columns(stated: Mapping[str, Any], width: int) -> dict[str, tuple[int, int]]:
    """First and last column of each kind of feature, within the width of the array."""
    found = {str(name): (first, last) for name, (first, last) in stated.items()}
    for name, bounds in found.items():
        if (
            any(type(bound) is not int for bound in bounds)
            or not 0 <= bounds[0] < bounds[1] <= width
        ):
            raise ValueError(
                f"manifest.json says that {name} is columns {bounds[0]} to {bounds[1]} of {width}"
            )
    return found


def checksums(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files of a folder of features, and of its manifest without them."""
    found = {name: digest_of(folder / name) for name in _FILES}
    plain = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(plain, sort_keys=True)
    return {**found, "manifest": hashlib.sha256(text.encode()).hexdigest()}


def _check(folder: Path, manifest: Mapping[str, Any]) -> None:
    stated = manifest.get("sha256")
    if stated is None:  # from before there were checksums
        say_once(
            f"note: the features in {folder} have no checksums; extract them again to add checksums"
        )
        return
    found = checksums(folder, manifest)
    damaged = [name for name in found if found[name] != stated.get(name)]
    if damaged:
        names = ["manifest.json" if name == "manifest" else name for name in damaged]
        raise UserError(
            f"the features in {folder} are damaged ({', '.join(names)}: the content does not match "
            "the checksum); extract them again with convit-ssl features"
        )
