"""Python processes that this one starts do not import from the current folder.

``python -m`` and ``python -c`` look there first, so that a ``socket.py`` among a user's files
would take the place of the library's. Python 3.11 and later have ``PYTHONSAFEPATH`` against that.
"""

from __future__ import annotations

import contextlib
import multiprocessing.util
import os
import shlex
import site
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SAFE = "PYTHONSAFEPATH"
_KNOWN = sys.version_info >= (3, 11)
_RUN_MODULE = (
    "import sys; sys.path[:] = [place for place in sys.path if place]; import runpy; "
    "sys.argv[:] = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
_RUN_AFTER_U = _RUN_MODULE.replace("sys.argv[1:]", "sys.argv[3:]")  # behind -u -m


@contextlib.contextmanager
def safe_children() -> Iterator[None]:
    """What multiprocessing starts in the block imports from this process's own places alone."""
    before = os.environ.get(SAFE)
    os.environ[SAFE] = "1"
    try:
        with contextlib.nullcontext() if _KNOWN else _isolated():
            yield
    finally:
        if before is None:
            os.environ.pop(SAFE, None)
        else:
            os.environ[SAFE] = before


def keep_children_safe() -> None:
    """As `safe_children`, for the rest of this process: loader workers and trackers included."""
    os.environ[SAFE] = "1"
    if not _KNOWN:
        _isolate()


def safe_command(command: Sequence[str]) -> list[str]:
    """The command line ``python -m MODULE ...``, kept from importing from the current folder."""
    if _KNOWN or list(command[1:2]) != ["-m"]:
        return list(command)
    return [command[0], "-c", _RUN_MODULE, *command[2:]]


def safe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for `safe_command`, in which this package is found as it is here."""
    root = str(Path(__file__).resolve().parents[1])
    found = {**environment, SAFE: "1"}
    if root not in map(str, map(os.path.realpath, site.getsitepackages())):
        places = [place for place in (environment.get("PYTHONPATH"), root) if place]
        found["PYTHONPATH"] = os.pathsep.join(places)
    return found


def safe_code(code: str) -> str:
    """Python code for ``python -c`` that does not import from the current folder."""
    return f"import sys; sys.path[:] = [place for place in sys.path if place]; {code}"


def safe_python() -> str:
    """For a shell: this Python, to be followed by ``-u -m MODULE ...``.

    From Python 3.11 on it is the interpreter alone, and the environment has to set `SAFE`.
    """
    python = shlex.quote(sys.executable)
    return python if _KNOWN else f"{python} -c {shlex.quote(_RUN_AFTER_U)}"


@contextlib.contextmanager
def _isolated() -> Iterator[None]:
    """For Python 3.10: multiprocessing starts its processes isolated.

    They take over this process's ``sys.path`` before anything of ours is imported, so that only
    the libraries that start them are looked for elsewhere.
    """
    plain = _isolate()
    try:
        yield
    finally:
        util: Any = multiprocessing.util
        util._args_from_interpreter_flags = plain


def _isolate() -> Any:
    util: Any = multiprocessing.util
    plain = util._args_from_interpreter_flags
    util._args_from_interpreter_flags = lambda: [*plain(), "-I"]
    return plain
