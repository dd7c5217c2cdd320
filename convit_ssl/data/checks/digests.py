"""The digest of everything that an image consists of."""

from __future__ import annotations

import hashlib
import os

from convit_ssl.data.listing.part_names import JOINT, split_joined, split_part

_BLOCK = 2**20


def content_digest(path: str) -> str:
    """SHA-256 of all bytes of an image: of a file, of several, or of a folder (Zarr).

    Raises:
        OSError: they cannot be read.
    """
    file, part = split_part(path)
    digest = hashlib.sha256(part.encode())
    for each in [one for _, one in split_joined(file)] if JOINT in file else [file]:
        below = [each]
        if os.path.isdir(each):
            below = sorted(os.path.join(top, n) for top, _, names in os.walk(each) for n in names)
        for one in below:
            digest.update(os.path.relpath(one, each).encode("utf-8", "surrogateescape"))
            with open(one, "rb") as opened:
                while block := opened.read(_BLOCK):
                    digest.update(block)
    return digest.hexdigest()
