"""Reading one image, and what happens when it cannot be read.

A file that is damaged, empty, gone or forbidden is reported once with its path and
counted over all loader workers and processes; the caller replaces it. More of them
than allowed stop the run. A file system that answers with an error for a while is
asked again with growing pauses first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import uuid
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from PIL import Image, UnidentifiedImageError

from convit_ssl.data.augment.physical import Drawn
from convit_ssl.data.listing.part_names import JOINT
from convit_ssl.data.loading.paths import is_url
from convit_ssl.data.loading.retries import may_pass, retried
from convit_ssl.data.loading.storage import is_there, read_bytes
from convit_ssl.data.readers import reads_by_path
from convit_ssl.data.reading.channel_reading import read_channels, read_planes, special_rgb
from convit_ssl.data.reading.pixels import MAX_PIXELS, Pixels, Reading, decode_array, decode_image
from convit_ssl.data.reading.planes import Scaled, chosen, scaled
from convit_ssl.errors import TemporaryError, UserError
from convit_ssl.sealed import read_line, seal_line

logger = logging.getLogger("convit_ssl.data")

Decoded = TypeVar("Decoded")
_LISTED = 20
# One file may lie on a bad sector. So many in a row that get no answer, each asked for 17.6 s,
# are an outage.
_OUTAGE = 5


class UnreadableImageError(Exception):
    """One image could not be read; the message is the reason, without the path."""


class DataError(UserError):
    """The images cannot be read."""

    def __init__(self, message: str) -> None:
        # A DataLoader re-raises a worker's exception with the worker's traceback as its
        # message; only the part that was written for the user is kept.
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].rstrip())


class TooManyUnreadableError(DataError):
    """More images than ``max_corrupt`` allows could not be read."""


class DataGoneError(TemporaryError, DataError):
    """The file system that holds the images went away."""


def read_file(path: str, root: str | os.PathLike[str] | None = None) -> bytes:
    """The bytes of ``path``; transient errors of the file system are retried.

    Args:
        path: a file, a member of a shard or a URL.
        root: the folder of all images; while it is gone or empty, every error is transient.

    Raises:
        UnreadableImageError: empty file, or an error that stayed.
    """
    try:
        data = retried(
            lambda: read_bytes(path), lambda error: may_pass(error) or not _holds_anything(root)
        )
    except OSError as error:
        raise UnreadableImageError(error.strerror or type(error).__name__) from error
    if not data:
        raise UnreadableImageError("the file is empty")
    return data


def _holds_anything(root: str | os.PathLike[str] | None) -> bool:
    """Whether a folder is there. One that a file system was mounted on is empty without it."""
    if root is None or is_url(root):
        return True
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is not None
    except PermissionError:
        return True  # its files may be read all the same
    except OSError:
        return False


class FaultLog:
    """An append-only list of unreadable files, shared by loader workers and processes.

    Args:
        path: where it is kept: the same file for all processes of a run, one JSON
            object a line. By default a temporary file that exists only once there is
            something in it and goes with the process that made it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is None:
            name = f"convit_ssl_unreadable_{os.getpid()}_{uuid.uuid4().hex}.jsonl"
            self.path = Path(tempfile.gettempdir()) / name
            weakref.finalize(self, _remove_own, str(self.path), os.getpid())
        else:
            self.path = Path(path)
        self._seen: dict[str, str] = {}
        self._unwritten: dict[str, str] = {}

    def read(self) -> dict[str, str]:
        """Path to reason, for every unreadable file so far."""
        text = ""
        with contextlib.suppress(OSError):
            text = self.path.read_text(encoding="utf-8")
        return _parse(text) | self._unwritten

    def add(self, path: str, reason: str) -> dict[str, str]:
        """Record ``path``; warns where it is new to all processes. Returns all so far."""
        if path in self._seen:
            return self._seen
        try:
            new = self._write({**self._unwritten, path: reason})
        except OSError as error:  # a full disk: training goes on, the other processes do not know
            new = True
            if not self._unwritten:
                logger.warning(
                    "%s cannot be written (%s): unreadable images are counted in each process's "
                    "memory alone",
                    self.path,
                    error.strerror,
                )
            self._unwritten[path] = reason
            self._seen = {**self._seen, path: reason}
        if new:
            logger.warning("unreadable image: %s (%s)", path, reason)
        return self._seen

    def _write(self, faults: dict[str, str]) -> bool:
        """Append what is not in the file. Returns whether the last one was not."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+", encoding="utf-8") as file, _locked(file.fileno()):
            file.seek(0)
            text = file.read()
            written = _parse(text)
            lines = [_line(*fault) for fault in faults.items() if fault[0] not in written]
            # A disk that was full left a part of a line.
            file.write(("" if text.endswith("\n") or not text else "\n") + "".join(lines))
            file.flush()
        self._seen = {**written, **faults}
        self._unwritten = {}
        return list(faults)[-1] not in written

    def discard(self, paths: Collection[str]) -> None:
        """Take entries out again, of an earlier run, that no longer hold."""
        self._unwritten = {p: why for p, why in self._unwritten.items() if p not in paths}
        kept = {p: why for p, why in self.read().items() if p not in paths}
        with (
            contextlib.suppress(OSError),
            open(self.path, "r+", encoding="utf-8") as file,
            _locked(file.fileno()),
        ):
            kept = {p: why for p, why in _parse(file.read()).items() if p not in paths}
            file.seek(0)
            file.truncate()
            file.writelines(_line(path, reason) for path, reason in kept.items())
        self._seen = {**kept, **self._unwritten}


def _line(path: str, reason: str) -> str:
    return seal_line({"path": path, "reason": reason})


def _parse(text: str) -> dict[str, str]:
    faults = {}
    for line in text.splitlines():
        with contextlib.suppress(KeyError):
            entry = read_line(line) or {}
            faults[str(entry["path"])] = str(entry["reason"])
    return faults


def _remove_own(path: str, process: int) -> None:
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # no flock on Windows; a doubled line does no harm
        yield
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class SampleReader:
    """Decodes images once each and keeps the account of those it cannot read.

    Args:
        paths: of all images: ``max_corrupt`` refers to their number, and only they count,
            whatever else the fault log holds.
        max_corrupt: tolerated share of unreadable images. One image is always
            tolerated, unless this is 0.
        fault_log: the shared account; see :class:`FaultLog`.
        max_pixels: larger images count as unreadable (decompression bombs).
        root: the folder of all images, which tells an outage from a missing file.
        reading: how files become 8-bit RGB.
    """

    def __init__(
        self,
        paths: Sequence[str],
        max_corrupt: float = 0.01,
        fault_log: FaultLog | None = None,
        max_pixels: int = MAX_PIXELS,
        root: str | os.PathLike[str] | None = None,
        reading: Reading | None = None,
    ) -> None:
        if not 0.0 <= max_corrupt <= 1.0:
            raise UserError(f"max_corrupt is {max_corrupt}; give a fraction from 0 to 1")
        self.paths = paths
        self.num_images = len(paths)
        self.max_corrupt = max_corrupt
        self.fault_log = fault_log or FaultLog()
        self.max_pixels = max_pixels
        self.root = root
        self.reading = reading or Reading()
        self._unanswered = 0  # images in a row
        self._unreadable: dict[str, str] = {}

    @property
    def allowance(self) -> int:
        """How many images may be unreadable."""
        if self.max_corrupt == 0.0:
            return 0
        return max(1, int(self.max_corrupt * self.num_images))

    def image(self, path: str) -> Image.Image:
        """The image as Pillow RGB.

        Raises:
            UnreadableImageError: this one cannot be read.
            TooManyUnreadableError: nor can more of them than allowed.
            DataGoneError: the file system went away.
        """
        return self._decoded(path, self._image)

    def array(self, path: str, min_side: int | None = None, drawn: Drawn | None = None) -> Pixels:
        """The image as (H, W, 3) uint8, see ``decode_array``. Raises as :meth:`image`.

        Args:
            path: of the image.
            min_side: see ``decode_array``.
            drawn: the tile to read in its place, and where in it a crop of a physical size lies.
        """

        def decode(data: bytes) -> Pixels:
            return decode_array(data, min_side, self.max_pixels, self.reading)

        return self._decoded(path, decode, drawn)

    def channels(self, path: str, drawn: Drawn | None = None) -> Scaled:
        """The image as (H, W, C) float32, see ``read_channels``. Raises as :meth:`image`."""
        data = self._bytes(path)
        try:
            place = path if drawn is None else drawn.path
            planes = read_planes(place, data, self.reading, self.max_pixels)
            made = scaled(chosen(planes, self.reading), self.reading)
            if drawn is None or not self.reading.physical:
                return made
            square: Scaled = drawn.cut(made, planes.spacing, self.reading)
            return square
        except Exception as error:
            raise self._fault(path, _reason(error)) from error

    def _image(self, data: bytes) -> Image.Image:
        return decode_image(data, self.max_pixels, self.reading)

    def _decoded(
        self, path: str, decode: Callable[[bytes], Decoded], drawn: Drawn | None = None
    ) -> Decoded:
        """What a decoder of usual files makes of one, or a reader of any other."""
        data = self._bytes(path)
        try:
            if drawn is not None:
                return cast(Decoded, drawn.rgb(data, self.reading, self.max_pixels))
            special = special_rgb(path, data, self.reading)
            if special is not None:
                made: Any = special if decode != self._image else Image.fromarray(special)
                return cast(Decoded, made)
            assert data is not None
            return decode(data)
        except Exception as error:
            raise self._fault(path, _reason(error)) from error

    def _bytes(self, path: str) -> bytes | None:
        """A file's content; None of one whose reader opens it by its path."""
        known = self._unreadable.get(path)
        if known is not None:
            raise UnreadableImageError(known)
        if reads_by_path(path, self.reading) and (JOINT in path or is_there(path)):
            return None
        try:
            data = read_file(path, self.root)
        except UnreadableImageError as error:
            self._check_outage(path, error)
            raise self._fault(path, str(error)) from error
        self._unanswered = 0
        return data

    def _check_outage(self, path: str, error: UnreadableImageError) -> None:
        """Tell a file system that went away from images that are damaged or missing.

        Raises:
            DataGoneError: no folder is left of the images, or several in a row got no answer.
        """
        self._unanswered = self._unanswered + 1 if may_pass(error.__cause__) else 0
        if self._unanswered < _OUTAGE and _holds_anything(self.root):
            return
        raise DataGoneError(
            f"{self.root or path} became unavailable while images were being read ({error}): the "
            f"file system is not mounted, or does not respond. Once it is back, the same command "
            f"resumes from the last checkpoint"
        )

    def _standing(self, faults: dict[str, str]) -> dict[str, str]:
        """Those of these images that cannot be read now; the log may be of an earlier run."""
        ours = {path for path in self.paths if path in faults}
        mended = {
            path
            for path in ours - self._unreadable.keys()
            if _is_readable(path, self.max_pixels, self.reading)
        }
        gone = {path for path in faults.keys() - ours if not is_there(path)}
        if mended or gone:
            self.fault_log.discard(mended | gone)
        return {path: why for path, why in faults.items() if path in ours - mended}

    def _fault(self, path: str, reason: str) -> Exception:
        self._unreadable[path] = reason
        faults = self.fault_log.add(path, reason)
        if len(faults) > self.allowance:
            faults = self._standing(faults)
        if len(faults) <= self.allowance:
            return UnreadableImageError(reason)
        shown = [f"  {name} ({why})" for name, why in list(faults.items())[:_LISTED]]
        if len(faults) > _LISTED:
            shown.append(f"  ... and {len(faults) - _LISTED} more")
        return TooManyUnreadableError(
            f"{len(faults)} of {self.num_images:,} images cannot be read, more than "
            f"max_corrupt={self.max_corrupt:g} allows ({self.allowance}). Repair or remove them, "
            f"or raise data.max_corrupt:\n" + "\n".join(shown)
        )


def _is_readable(path: str, max_pixels: int, reading: Reading) -> bool:
    try:
        data = None if reads_by_path(path, reading) else read_bytes(path)
        if reading.native:
            read_channels(path, data, reading, max_pixels)
        elif special_rgb(path, data, reading) is None:
            decode_image(data or b"", max_pixels)
    except Exception:
        return False
    return True


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows, or a damaged one"
    text = " ".join(str(error).split())
    if text == "could not create decoder object":  # all that Pillow says of a damaged WebP
        return "the WebP file is damaged or cut off"
    return text or type(error).__name__
