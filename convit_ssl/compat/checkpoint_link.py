"""The link ``checkpoint.torch`` to the newest checkpoint.

Broke: with a relative CHECKPOINT.DIR the link's target is read from the link's own folder and
    dangles, so a resume finds nothing; moving or mounting the run elsewhere breaks an absolute
    one. The old link is removed before the new one is made, and a failure in between is only
    logged.
Since: always
Upstream: vissl/utils/io.py:40
Goes when: VISSL writes a link relative to its own folder.
"""

from __future__ import annotations

import logging
import os
from types import ModuleType

from convit_ssl.compat._patch import replace


def create_file_symlink(file1: str, file2: str) -> None:
    """Make ``file2`` a relative link to ``file1``, atomically.

    Like upstream's, it logs a failure instead of raising: training continues without the link.
    Paths on other file systems (``manifold://``) are left to iopath.
    """
    try:
        if "://" in f"{file1} {file2}":
            _link_elsewhere(file1, file2)
            return
        folder = os.path.realpath(os.path.dirname(file2) or ".")
        source = os.path.join(
            os.path.realpath(os.path.dirname(file1) or "."), os.path.basename(file1)
        )
        new = os.path.join(folder, f".link{os.getpid()}.tmp")
        if os.path.lexists(new):
            os.remove(new)
        os.symlink(os.path.relpath(source, folder), new)
        os.replace(new, os.path.join(folder, os.path.basename(file2)))
    except OSError as error:
        logging.warning(f"Could not link {file2} to {file1}: {error}")


def _link_elsewhere(file1: str, file2: str) -> None:
    from iopath.common.file_io import g_pathmgr

    if g_pathmgr.exists(file2):
        g_pathmgr.rm(file2)
    g_pathmgr.symlink(file1, file2)


def apply(module: ModuleType) -> None:
    """Replace ``vissl.utils.io.create_file_symlink``."""
    replace(module, "create_file_symlink", create_file_symlink)
