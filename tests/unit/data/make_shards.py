"""Small WebDataset shards and lists of coloured images, for tests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Noise that is the image's own."""
    noise = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return np.asarray(noise, dtype=np.uint8)


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(number)).save(file, "PNG")
    return file.getvalue()


def write_shard(path: Path, numbers: range, labels: str = "number") -> None:
    """A shard of samples `numbers`; their labels are number % 3, as digits or as words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            text = {"number": str(number % 3), "word": "abc"[number % 3], "none": ""}[labels]
            members = {"png": png(number), "cls": text.encode(), "json": b'{"width": 7}'}
            for extension, data in members.items():
                if data:
                    info = tarfile.TarInfo(f"{number:05d}.{extension}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def write_shards(folder: Path, shards: int = 4, each: int = 5, labels: str = "number") -> Path:
    """``train/`` of `shards` shards of unequal size, ``val/`` of one."""
    first = 0
    for number in range(shards):
        count = each + number
        write_shard(folder / "train" / f"{number:04d}.tar", range(first, first + count), labels)
        first += count
    write_shard(folder / "val" / "0000.tar", range(900, 900 + each), labels)
    return folder
