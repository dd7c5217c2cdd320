"""Volumes of NIfTI that are read slice by slice: what is kept of them, and what is read anew.

A slice of a compressed volume costs the decompression of all that lies before it. So a volume is
read as a whole when a second slice of it is asked for and there is room, or when it is read from
end to end; a collection too large for that is read slice by slice, as nibabel itself does.
"""

from __future__ import annotations

import gzip
import os
import threading
from collections import OrderedDict
from typing import Any

import nibabel
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from convit_ssl.data.reading.raw_image import Values

_KEPT_BYTES = 256 * 2**20  # of voxels, in each process
_KNOWN = 256  # volumes whose headers are kept
_Key = tuple[str, int, int, int]


class Volume:
    """One volume, or several of the same size, in RAS+ orientation; voxels are read when needed.

    Args:
        image: as nibabel opens it.

    Attributes:
        shape: (right, front, up) in voxels.
        zooms: the size of a voxel in mm, in the same order.
        times: how many volumes the file holds.
        dtype: of the stored voxels.
        plain: whether stored voxels are the values, so that whole numbers stay whole.
        nbytes: of the stored voxels.
        slices_read: how often a slice was asked for.

    Raises:
        ValueError: no picture, or an affine matrix that gives a direction no axis.
    """

    def __init__(self, image: Any) -> None:
        stored = tuple(int(n) for n in image.shape)
        if len(stored) < 2 or not hasattr(image, "affine"):
            raise ValueError(f"a NIfTI of {len(stored)} dimensions is not an image")
        self.dtype: np.dtype[Any] = np.dtype(image.get_data_dtype())
        if self.dtype.kind == "c":
            raise ValueError("a NIfTI of complex numbers; save its magnitude or its phase")
        self._data: Any = image.dataobj
        self._stored = stored
        self._voxels: Values | None = None
        self.slices_read = 0
        turn: Any = nibabel.io_orientation
        orientation = turn(image.affine)
        if not np.isfinite(orientation).all():
            raise ValueError("the affine matrix of the NIfTI gives an axis no direction")
        # Of each anatomical axis: the stored one, and whether it runs the other way.
        order = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
        self._axes = [(place, orientation[place, 1] < 0) for place in order]
        padded = (*stored[:3], 1, 1)[:3]
        zooms = [abs(float(z)) for z in image.header.get_zooms()[:3]]
        zooms = [z if np.isfinite(z) and z > 0 else 1.0 for z in (*zooms, 1.0, 1.0)[:3]]
        self.shape = tuple(padded[place] for place in order)
        self.zooms = tuple(zooms[place] for place in order)
        self.times = int(np.prod(stored[3:], dtype=np.int64))
        # Not of the header: nibabel takes the factors out of it when it opens a file.
        self.plain = (self._data.slope, self._data.inter) == (1.0, 0.0)
        self.nbytes = int(np.prod(stored, dtype=np.int64)) * self.dtype.itemsize

    @classmethod
    def of_bytes(cls, data: bytes) -> Volume:
        """Of the content of a file."""
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        kind: Any = nibabel.Nifti2Image if data[4:8] == b"n+2\0" else nibabel.Nifti1Image
        return cls(kind.from_bytes(data))

    def load(self) -> None:
        """Read all voxels, to be kept as they are stored."""
        self._voxels = np.asarray(self._data.get_unscaled())

    def drop(self) -> None:
        """Forget the voxels."""
        self._voxels = None

    @property
    def loaded(self) -> bool:
        """Whether the voxels are in memory."""
        return self._voxels is not None

    def plane(self, axis: int, place: int, time: int) -> Values:
        """(first, second) of the two other axes in RAS+ order, in nibabel's values."""
        stored_axis, backwards = self._axes[axis]
        index: list[Any] = [slice(None)] * min(3, len(self._stored))
        if stored_axis < len(index):
            index[stored_axis] = self.shape[axis] - 1 - place if backwards else place
        rest = tuple(int(n) for n in np.unravel_index(time, self._stored[3:] or (1,)))
        where = (*index, *rest[: len(self._stored) - 3]) if len(self._stored) > 3 else tuple(index)
        voxels = self._voxels
        if voxels is None:
            plane = np.asarray(self._data[where])
        else:
            plane = voxels[where]
            if not self.plain:
                plane = apply_read_scaling(plane, self._data.slope, self._data.inter)
        others = [self._axes[n] for n in range(3) if n != axis]
        if plane.ndim == 1:  # a flat image, cut across an axis that it has
            plane = plane[:, None] if others[0][0] < others[1][0] else plane[None]
        elif others[0][0] > others[1][0]:
            plane = plane.T
        turned: Values = plane[tuple(slice(None, None, -1 if f else 1) for _, f in others)]
        return turned


class Volumes:
    """Those that were used last; the voxels of some of them are in memory."""

    def __init__(self, most_bytes: int = _KEPT_BYTES) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._known: OrderedDict[_Key, Volume] = OrderedDict()
        self._last: Volume | None = None

    def get(self, path: str) -> Volume:
        """The volume in a file, without its voxels; opened again where the file changed."""
        state = os.stat(path)
        key = (path, state.st_mtime_ns, state.st_size, state.st_ino)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = Volume(nibabel.load(path))
            self._known.move_to_end(key)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return known

    def to_be_read(self, path: str) -> Volume:
        """The volume in a file, of which a slice is read next."""
        found = self.get(path)
        with self._lock:
            if found.slices_read and not found.loaded:
                self._load(found)
            found.slices_read += 1
            self._last = found
        return found

    def _load(self, volume: Volume) -> None:
        """Read all of a volume of which a second slice is wanted, if that is likely to pay."""
        kept = [each for each in self._known.values() if each.loaded]
        room = self._most - sum(each.nbytes for each in kept) - volume.nbytes
        if room < 0 and volume is self._last and volume.nbytes <= self._most:
            for each in kept:  # read from end to end: what was used longest ago makes room
                if room < 0:
                    each.drop()
                    room += each.nbytes
        if room >= 0:
            volume.load()
