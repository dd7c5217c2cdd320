"""URLs (``s3://``, ``https://``, ``memory://`` and what else fsspec knows), and their failures."""

from __future__ import annotations

import contextlib
import errno
import tarfile
from collections.abc import Iterator
from typing import Any

from convit_ssl.errors import UserError

# What asking again does not change.
_ERRNO_OF_STATUS = {
    401: errno.EACCES,
    403: errno.EACCES,
    404: errno.ENOENT,
    410: errno.ENOENT,
}


def remote(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the place in it. One for each process; never kept over a fork.

    Raises:
        UserError: an unknown kind of URL, or one that needs another package.
    """
    import fsspec

    try:
        system, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(f"{url} needs another package: {error}") from None
    except ValueError as error:
        raise UserError(f"{url} cannot be read: {error}") from None
    return system, str(place)


@contextlib.contextmanager
def network(url: str) -> Iterator[None]:
    """What goes wrong on the way is EIO, whatever the package calls it.

    Raises:
        FileNotFoundError: the server says that it is not there.
        PermissionError: the server refuses it.
        OSError: EIO for everything else; 503 of a busy server, for one.
        UserError: as it was raised.
        tarfile.TarError: the download is not a tar file.
    """
    try:
        yield
    except (UserError, PermissionError, tarfile.TarError):
        raise
    except Exception as error:
        status = _http_status(error)
        if isinstance(error, FileNotFoundError) and status is None and not _lost(error.__cause__):
            raise
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        number = _ERRNO_OF_STATUS.get(status or 0, errno.EIO)
        raise OSError(number, f"{type(error).__name__}: {reason[:160]}", url) from error


def _http_status(error: BaseException | None) -> int | None:
    """The number with which a server answered, of an error or of what it came from."""
    while error is not None:
        status = getattr(error, "status", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _lost(cause: BaseException | None) -> bool:
    """Whether no answer came. fsspec calls that "not found" where it asks for a file's size."""
    of_network = type(cause).__module__.startswith(("aiohttp", "asyncio"))
    return of_network or isinstance(cause, OSError | TimeoutError)
