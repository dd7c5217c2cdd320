"""Films by PyAV: frames as images, one a second unless asked otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from convit_ssl.data.listing.part_names import part_fields
from convit_ssl.data.notes import note_once
from convit_ssl.data.readers import ImageFile
from convit_ssl.data.readers.handles import Handles
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import ImageHeader, check_size
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError

_GREY16 = frozenset(f"gray{bits}{end}" for bits in (9, 10, 12, 14, 16) for end in ("le", "be"))
_BYTE = 8  # bits
_WHOLE = 0.9  # of the announced length, below which a film may be cut off


@dataclass
class _Film:
    """An open film.

    Attributes:
        container, stream: of PyAV.
        times: of the frames in the order of the film, in units of the stream.
    """

    container: Any
    stream: Any
    times: list[int]

    def close(self) -> None:
        """Close the file."""
        self.container.close()


def _open(path: str) -> _Film:
    container = av.open(path, mode="r")
    if not container.streams.video:
        container.close()
        raise ValueError("the film holds no pictures")
    stream = container.streams.video[0]
    # Packets alone tell the frames' times; nothing is decoded.
    times = sorted({p.pts for p in container.demux(stream) if p.pts is not None and p.size})
    if not times:
        container.close()
        raise ValueError("the film holds no frames with a time")
    _say_if_cut_off(path, container, (times[-1] - times[0]) * float(stream.time_base or 0))
    return _Film(container, stream, times)


def _say_if_cut_off(path: str, container: Any, seconds: float) -> None:
    """Some formats are read up to where a file ends, without an error."""
    announced = (container.duration or 0) / av.time_base
    if seconds < _WHOLE * announced and seconds < announced - 1:
        note_once(
            f"{path} has frames for {seconds:.1f} of the {announced:.1f} s that it announces; it "
            "may be cut off"
        )


_FILMS = Handles(_open, 4)


def parts(file: ImageFile, spec: str) -> list[str]:
    """Frames: one a second (``second:1``), every n-th (``frame:10``), all (``frame``) or one.

    Raises:
        UserError: something else.
    """
    if spec == "first":
        return []
    name, _, value = (spec or "second:1").partition(":")
    film = _FILMS.get(file.local())
    if name in ("frame", "all") and (not value or value.isdigit()):
        return [f"frame={n}" for n in range(0, len(film.times), max(1, int(value or 1)))]
    try:
        every = float(value or 1)
    except ValueError:
        every = 0.0
    if name != "second" or not 0 < every < float("inf"):
        raise UserError(f"data.parts={spec}: for video, give second:0.5, frame:10, frame or first")
    step = every / float(film.stream.time_base)
    found, due = [], float(film.times[0])
    for number, time in enumerate(film.times):
        if time >= due:
            found.append(f"frame={number}")
            due = max(due + step, time + step / 2)
    return found


def header(file: ImageFile, part: str) -> ImageHeader:
    """Size of the frames."""
    context = _FILMS.get(file.local()).stream.codec_context
    grey = str(context.pix_fmt).startswith("gray")
    kind = "unsigned" if str(context.pix_fmt) in _GREY16 else "8 bits"
    mode = "RGB" if not grey else "L" if kind == "8 bits" else "I;16"
    return ImageHeader(context.height, context.width, grey, kind, mode)


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """One frame, in RGB or grey; grey of up to 16 bits as it is.

    Colours have 8 bits. In native depth, those of a film of more have 16, white being 65,535.
    Frames are as they are stored. ``data.exif_rotation`` turns them as the film says.

    Raises:
        ValueError: no such frame, or it cannot be decoded.
    """
    film = _FILMS.get(file.local())
    number = int(part_fields(part).get("frame", 0))
    if not 0 <= number < len(film.times):
        raise ValueError(f"the film has {len(film.times)} frames, and no frame {number}")
    check_size(film.stream.codec_context.width, film.stream.codec_context.height)
    wanted = film.times[number]
    frame = _frame(film, wanted)
    if frame is None:
        raise ValueError(f"frame {number} of the film cannot be decoded")
    name = frame.format.name
    if name.startswith("gray"):
        values = frame.to_ndarray(format=name if name in _GREY16 or name == "gray" else "gray")
        values = values[..., None]
    else:
        deep = reading.native and max(part.bits for part in frame.format.components) > _BYTE
        values = frame.to_ndarray(format="rgb48le" if deep else "rgb24")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    turns = round(frame.rotation / 90) % 4 if reading.exif_rotation else 0
    values = np.ascontiguousarray(np.rot90(values, turns))
    return Planes(values, ("grey",) if values.shape[-1] == 1 else ("R", "G", "B"))


def _frame(film: _Film, wanted: int) -> Any:
    """The frame of a time: decoded from the key frame before it, or else from the beginning."""
    for start in (wanted, film.times[0]):
        film.container.seek(start, backward=True, any_frame=False, stream=film.stream)
        for frame in film.container.decode(film.stream):
            if frame.pts == wanted:
                return frame
            if frame.pts is not None and frame.pts > wanted:
                break
    return None
