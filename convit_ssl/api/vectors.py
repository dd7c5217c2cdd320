"""Features of images from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.api.common import Data, Weights, arguments_of, coded, data_arguments
from convit_ssl.api.common import weights_argument as name_of
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.tables import FeatureTable
from convit_ssl.once import within_command

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Features:
    """Features of images, one row per image that could be read.

    Attributes:
        table: the features and what is known of each image.
    """

    table: FeatureTable

    def __repr__(self) -> str:
        """Number of images and kinds of features, in one line."""
        found = self.table.features
        return f"Features({len(found):,} images, {', '.join(found.columns)})"

    def __len__(self) -> int:
        """Number of images."""
        return len(self.table.features)

    @property
    def array(self) -> Array:
        """(images, channels), float32; for patch maps (images, rows, columns, channels).

        The array is memory-mapped; ``numpy.array(found.array)`` reads it into memory.
        """
        found: Any = self.table.features.features
        patches = self.table.features.manifest.get("patches")
        array: Array = found if patches is None else found.reshape(len(found), *patches)
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """For NumPy, scikit-learn and others."""
        return np.array(self.array, dtype=dtype) if copy else np.asarray(self.array, dtype=dtype)

    @property
    def names(self) -> list[str]:
        """Path of each image."""
        return list(self.table.about["path"])

    @property
    def labels(self) -> list[str | None]:
        """Class of each image, by its folder; None without one."""
        return list(self.table.about["label"])

    @property
    def groups(self) -> list[str | None]:
        """Group of each image; None if no `group_by` was given."""
        return list(self.table.about["group"])

    @property
    def sizes(self) -> list[tuple[int | None, int | None]]:
        """Height and width of each image in pixels."""
        about = self.table.about
        return list(zip(about["height"], about["width"], strict=True))

    @property
    def columns(self) -> dict[str, tuple[int, int]]:
        """First channel, and the one after the last, of each kind of feature."""
        return dict(self.table.features.columns)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the network that the features come from."""
        return str(self.table.features.manifest["fingerprint"]["weights"])

    @property
    def unreadable(self) -> dict[str, str]:
        """Path and reason of the images without a row."""
        return dict(self.table.features.unreadable)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`: path, label, group, height, width, and a column per channel.

        Raises:
            UserError: these are patch maps, or pandas is missing.
        """
        with coded("output"):
            return self.table.to_pandas()

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the same as a CSV file.

        Raises:
            UserError: these are patch maps.
        """
        with coded("output"):
            return self.table.write_csv(Path(path))

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write a Parquet file with one column of vectors per kind of feature.

        Raises:
            UserError: these are patch maps, or pyarrow is missing.
        """
        with coded("output"):
            return self.table.write_parquet(Path(path))


@within_command()
def embed(
    weights: Weights,
    data: Data | Sequence[str | os.PathLike[str]],
    *,
    split: str = "train",
    tokens: str = "class",
    columns: Sequence[str] | None = None,
    group_by: str | None = None,
    out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Features:
    """Extract features of images; those extracted before are read from the cache.

    Args:
        weights: a run, a checkpoint, weights of another project, ``random:convit_nano``, or
            ``pixels``.
        data: a folder of images, the name of a data set, or a list of image files.
        split: train or val; all images of a folder without these subfolders are train.
        tokens: "class" for one vector per image, "patch" for a map of vectors.
        columns: kinds of features, such as ``["class_last1"]``; by default the class tokens of the
            last two blocks and the mean patch token.
        group_by: group of each image: ``folder:1`` or ``name:REGEX``.
        out: folder for the files; by default the cache.
        options: further options of ``convit-ssl features``, such as ``device``, ``batch_size`` or
            ``img_size``.

    Raises:
        UserError: an error that you can fix; `code` is data or weights.
        TypeError: an unknown option.
    """
    from convit_ssl.cli import features_command
    from convit_ssl.cli.probe import sources as probe_sources

    files, where = None, {"data": "folder"}
    if isinstance(data, (str, os.PathLike)):
        where = data_arguments(data)
    else:
        files = [os.fspath(file) for file in data]
    given = {
        **where, "columns": None if columns is None else list(columns), "group_by": group_by,
        "tokens": tokens, **options,
    }  # fmt: skip
    args = arguments_of("features", [name_of(weights), "--out", "."], given)
    args.out = None if out is None else os.fspath(out)
    listing = None
    if files is not None:
        listing = _listing(files)
    with coded("data"):
        groups = {} if files is not None else features_command.groups_of(args, split)
    with coded("weights"):
        source = probe_sources.open_source(args)
        found = probe_sources.read_features(source, args, split, listing)
    return Features(FeatureTable(found, groups))


def _listing(files: Sequence[str]) -> Any:
    """A listing of image files without labels, in the order given."""
    from convit_ssl.data.listing.folders import Listing

    paths = [os.path.abspath(os.path.expanduser(file)) for file in files]
    missing = next((path for path in paths if not os.path.isfile(path)), None)
    if missing is not None or not paths:
        with coded("data"):
            raise UserError(f"no such image: {missing}" if paths else "an empty list of images")
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return Listing(
        Path(root), [os.path.relpath(path, root) for path in paths], [-1] * len(paths), []
    )
