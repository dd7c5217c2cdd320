"""ELPV: 2,624 electroluminescence photographs of solar cells, whole or defective.

From the package elpv-dataset (Deitsch et al., Solar Energy 185, 2019, doi:10.1016/
j.solener.2019.02.067; licence CC BY-NC-SA 4.0). An expert's probability of a defect of 0.5 or more
counts as defective. Each image goes to train, val or test (60, 20, 20 %) by a hash of its file
name, so that the split is the same everywhere and no choice of anybody's. The kind of cell, mono-
or polycrystalline, is in the file name, for ``--group-by name:...``.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from convit_ssl.data.sources.hashed import Copy, hashed_split
from convit_ssl.errors import UserError

CLASSES = ("defective", "functional")
SIDE = 300
COUNTS = (("train", 1559), ("val", 531), ("test", 534))


def copies(data_dir: str | os.PathLike[str] | None = None) -> list[Copy]:
    """Every image with its place in the split.

    Args:
        data_dir: the folder of labels.csv; by default that of the installed package.

    Raises:
        UserError: it is not there, or not what it should be.
    """
    folder = _folder(data_dir)
    found = []
    try:
        lines = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
        for line in lines:
            path, probability, kind = line.split()
            name = CLASSES[0] if float(probability) >= 0.5 else CLASSES[1]
            file = f"{Path(path).stem}_{kind}.png"
            split = hashed_split("elpv", Path(path).name)
            found.append(Copy(split, f"{name}/{file}", folder / path))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / 'labels.csv'}: {error}") from error
    return found


def _folder(data_dir: str | os.PathLike[str] | None) -> Path:
    if data_dir:
        folder = Path(data_dir).expanduser()
    else:
        package = importlib.util.find_spec("elpv_dataset")
        if package is None or package.origin is None:
            raise UserError(
                "elpv needs the package elpv-dataset: pip install elpv-dataset, or give the "
                "folder that contains labels.csv with data_dir="
            )
        folder = Path(package.origin).parent / "data"
    if not (folder / "labels.csv").is_file():
        raise UserError(f"{folder} holds no labels.csv of the ELPV data set")
    return folder
