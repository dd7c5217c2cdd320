"""FITS by astropy: the first image of a file; the planes of a cube are channels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from astropy.io import fits

from convit_ssl.data.readers import ImageFile
from convit_ssl.data.reading.planes import MOST_CHANNELS, Planes
from convit_ssl.data.reading.raw_image import check_size
from convit_ssl.data.reading.value_range import Reading


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """Values in physical units (BZERO and BSCALE applied), the first row at the bottom in FITS.

    Rows are turned so that the picture is upright, as viewers show it.

    Raises:
        ValueError: no image in the file, or one of more than three dimensions.
    """
    with fits.open(io.BytesIO(file.bytes()), memmap=False) as units:
        for unit in units:
            if not getattr(unit, "is_image", False) or unit.header.get("NAXIS", 0) < 2:
                continue
            shape = [int(side) for side in unit.shape]
            while len(shape) > 2 and shape[0] == 1:
                shape = shape[1:]
            if len(shape) > 3 or (len(shape) == 3 and shape[0] > MOST_CHANNELS):
                raise ValueError(
                    f"a FITS image of shape {tuple(unit.shape)}; one plane is read, or up to "
                    f"{MOST_CHANNELS} as channels"
                )
            check_size(shape[-1], int(np.prod(shape[:-1])))
            values: Any = np.asarray(unit.data).reshape(shape)
            values = values.astype(values.dtype.newbyteorder("="), copy=False)
            values = values[None] if values.ndim == 2 else values
            values = np.ascontiguousarray(np.moveaxis(values[:, ::-1], 0, -1))
            return Planes(values, ("grey",) if values.shape[-1] == 1 else ())
    raise ValueError("the FITS file contains no image")
