"""Features as tables for other programs: one row per image, as CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.data.reading.pixels import image_header
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.writing import whole_file

FORMATS = ("npy", "csv", "parquet")
INSTALL = "pip install 'convit_ssl[tables]'"
ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class FeatureTable:
    """Features with what is known of each image.

    Attributes:
        features: one row per image.
        groups: path -> group, where images belong together; empty where nobody said.
    """

    features: FeatureSet
    groups: Mapping[str, str]

    @cached_property
    def about(self) -> dict[str, list[Any]]:
        """Columns ``path, label, group, height, width``; None where a thing is not known."""
        found = self.features
        names = list(found.classes)
        labels = [names[t] if 0 <= t < len(names) else None for t in found.targets.tolist()]
        sizes = [_size(str(path)) for path in found.paths]
        return {
            "path": [str(path) for path in found.paths],
            "label": labels,
            "group": [self.groups.get(str(path)) for path in found.paths],
            "height": [size[0] for size in sizes],
            "width": [size[1] for size in sizes],
        }

    def write_csv(self, path: str | Path) -> Path:
        """One column per number, named ``class_last1_0`` and so on.

        Raises:
            UserError: the features are patch maps.
        """
        _refuse_maps(self.features)
        path = Path(path)
        with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*self.about, *self._names()])
            about = list(zip(*self.about.values(), strict=True))
            for first, rows in self._parts():
                for number, row in enumerate(rows, first):
                    known = ["" if cell is None else cell for cell in about[number]]
                    # The shortest text that reads back as the same float32.
                    writer.writerow([*known, *map(str, row)])
        return path

    def write_parquet(self, path: str | Path) -> Path:
        """One column of vectors (fixed-size lists of float32) per kind of feature.

        Raises:
            UserError: the features are patch maps, or pyarrow is missing.
        """
        _refuse_maps(self.features)
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise UserError(f"Parquet needs pyarrow: {INSTALL}; or use csv") from None
        path, columns = Path(path), self.features.columns
        texts = {name: arrow.string() for name in ("path", "label", "group")}
        fields = [*texts.items(), ("height", arrow.int32()), ("width", arrow.int32())]
        fields += [
            (name, arrow.list_(arrow.float32(), last - first))
            for name, (first, last) in columns.items()
        ]
        schema = arrow.schema(fields)
        with whole_file(path) as partial, parquet.ParquetWriter(partial, schema) as writer:
            for start, rows in self._parts():
                end = start + len(rows)
                arrays = [
                    arrow.array(cells[start:end], schema.field(name).type)
                    for name, cells in self.about.items()
                ]
                for first, last in columns.values():
                    flat = np.ascontiguousarray(rows[:, first:last]).reshape(-1)
                    arrays.append(arrow.FixedSizeListArray.from_arrays(flat, last - first))
                writer.write_table(arrow.table(arrays, schema=schema))
        return path

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with the columns of the CSV file.

        Raises:
            UserError: the features are patch maps, or pandas is missing.
        """
        _refuse_maps(self.features)
        try:
            import pandas
        except ImportError:
            raise UserError(f"tables need pandas: {INSTALL}") from None
        numbers = pandas.DataFrame(np.asarray(self.features.features), columns=self._names())
        return pandas.concat([pandas.DataFrame(self.about), numbers], axis=1)

    def write(self, form: str, folder: Path) -> Path:
        """``features.csv`` or ``features.parquet`` in a folder."""
        path = folder / f"features.{form}"
        return self.write_csv(path) if form == "csv" else self.write_parquet(path)

    def _names(self) -> list[str]:
        return [
            f"{name}_{number}"
            for name, (first, last) in self.features.columns.items()
            for number in range(last - first)
        ]

    def _parts(self) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """First row and rows, as float32, a part at a time: features may be larger than memory."""
        for start in range(0, len(self.features), ROWS_AT_A_TIME):
            rows = self.features.features[start : start + ROWS_AT_A_TIME]
            yield start, np.asarray(rows, np.float32)


def _size(path: str) -> tuple[int | None, int | None]:
    try:
        header = image_header(path)
    except (OSError, ValueError, UserError):
        return None, None
    return header.height, header.width


def _refuse_maps(features: FeatureSet) -> None:
    if features.manifest.get("patches"):
        raise UserError(
            "patch maps have too many numbers for a table; read features.npy, or leave "
            "--tokens patch out for one vector per image"
        )
