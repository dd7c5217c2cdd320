"""What a reader should know of the data, said once."""

from __future__ import annotations

import functools
import logging
import os

logger = logging.getLogger("convit_ssl.data")


@functools.cache
def note_once(text: str) -> None:
    """Log a warning once per process, in the first process of a group.

    A collection is listed several times by one command; what is odd about it is said once.
    """
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        logger.warning(text)
