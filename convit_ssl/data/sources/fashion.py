"""Fashion-MNIST (Xiao et al. 2017) from its original idx files.

Found in ``data_dir``, in the folder of Debian's package dataset-fashion-mnist, or in
torchvision's download (``FashionMNIST/raw``), which is made where there is a network.
"""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convit_ssl.errors import UserError

Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

CLASSES = (
    "0_t-shirt",
    "1_trouser",
    "2_pullover",
    "3_dress",
    "4_coat",
    "5_sandal",
    "6_shirt",
    "7_sneaker",
    "8_bag",
    "9_ankle_boot",
)

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

_PREFIX = {"train": "train", "val": "t10k"}


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """One idx file of unsigned bytes, gzipped or not.

    Source of the format: http://yann.lecun.com/exdb/mnist/.

    Raises:
        UserError: not an idx file of bytes, or truncated.
    """
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        zero, kind, ndim = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{ndim}I", data[4 : 4 + 4 * ndim])
        if (zero, kind) != (0, 8):
            raise ValueError("not an idx file of unsigned bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _find(folder: Path) -> dict[str, Path] | None:
    """The four files in ``folder`` or in one of the folders that torchvision makes."""
    for place in (folder, folder / "raw", folder / "FashionMNIST" / "raw"):
        found = {}
        for prefix in _PREFIX.values():
            for kind, ndim in (("images", 3), ("labels", 1)):
                stem = f"{prefix}-{kind}-idx{ndim}-ubyte"
                for name in (stem, f"{stem}.gz"):
                    if (place / name).is_file():
                        found[f"{prefix}-{kind}"] = place / name
        if len(found) == 4:
            return found
    return None


def _download(folder: Path) -> dict[str, Path] | None:
    try:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(folder), download=True)
    except Exception:  # no network comes as URLError, RuntimeError, ssl.SSLError, ...
        return None
    return _find(folder)


def load(data_dir: str | os.PathLike[str] | None) -> dict[str, Arrays]:
    """Images (N, 28, 28) and labels (N,) of train and val (the official test set).

    Raises:
        UserError: not found anywhere, or damaged.
    """
    from convit_ssl.data.sources.builtin import cache_folder

    if data_dir is not None:
        files = _find(Path(data_dir).expanduser())
        places = str(data_dir)
    else:
        downloads = cache_folder() / "downloads"
        files = _find(DEBIAN_FOLDER) or _find(downloads) or _download(downloads)
        places = f"{DEBIAN_FOLDER} and {downloads}, and the download failed"
    if files is None:
        raise UserError(
            f"the files of fashion_mnist were not found (looked in {places}). Install Debian's "
            "package dataset-fashion-mnist, or give the folder of train-images-idx3-ubyte.gz and "
            "its three companions by data_dir=/path"
        )
    splits = {}
    for split, prefix in _PREFIX.items():
        images, labels = read_idx(files[f"{prefix}-images"]), read_idx(files[f"{prefix}-labels"])
        if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max(initial=0) > 9:
            raise UserError(
                f"{files[f'{prefix}-images']} and its labels do not belong together; copy or "
                "download both again"
            )
        splits[split] = (images, labels)
    return splits
