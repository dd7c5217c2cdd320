"""Every parser of files, on damaged and random bytes: a value, or one UserError.

About 20 seconds; CONVIT_SSL_FUZZ_SECONDS=3600 looks for an hour, each parser for an equal share.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import read_rows
from convit_ssl.export import load_trunk
from convit_ssl.export.figures import figures_from_results
from convit_ssl.export.stated import stated_beside
from convit_ssl.reading import read_yaml
from tests.bad_input import corpus

SECONDS = float(os.environ.get("CONVIT_SSL_FUZZ_SECONDS", "18"))


def _beside(path: Path) -> Any:
    (path.parent / "config.json").write_bytes(path.read_bytes())
    return stated_beside(path)


PARSERS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "pth": ("wrong_weights", ".pth", load_trunk),
    "safetensors": ("wrong_weights", ".safetensors", load_trunk),
    "results": ("results", ".json", lambda path: read_rows([path])),
    "figures": ("results", ".json", lambda path: figures_from_results([path])),
    "yaml": ("yamls", ".yaml", read_yaml),
    "beside": ("results", ".json", _beside),
}


@pytest.mark.parametrize("parser", PARSERS)
def test_any_bytes_give_a_value_or_one_message(parser: str, tmp_path: Path) -> None:
    kind, suffix, read = PARSERS[parser]
    files: corpus.Files = getattr(corpus, kind)()
    seeds = [data for name, (data, _) in files.items() if name.endswith(suffix)]
    seeds = [data for data in seeds if len(data) < 20_000]
    draw = random.Random(int.from_bytes(os.urandom(4), "big") if SECONDS > 60 else 0)
    ends = time.monotonic() + SECONDS / len(PARSERS)
    path = tmp_path / f"fuzzed{suffix}"
    while time.monotonic() < ends:
        data = _damaged(draw, draw.choice(seeds))
        path.write_bytes(data)
        try:
            with contextlib.suppress(UserError):
                read(path)
        except BaseException:
            kept = tmp_path / f"found{suffix}"
            kept.write_bytes(data)
            print(f"the file that does it: {kept}")
            raise


def _damaged(draw: random.Random, data: bytes) -> bytes:
    """A few bytes changed, cut, doubled or drawn anew; more often near the start."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        place = int(len(changed) * draw.random() ** 2)
        kind = draw.randrange(5)
        if kind == 0 and changed:
            changed[min(place, len(changed) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[place:place] = draw.randbytes(draw.randrange(1, 9))
        elif kind == 2:
            del changed[place : place + draw.randrange(1, 33)]
        elif kind == 3:
            part = changed[place : place + draw.randrange(1, 65)]
            changed[place:place] = part
        else:
            value = draw.choice(
                (b"0", b"-1", b"1e999", b"null", b"NaN", b"[", b"{", b"\\x00", b'"')
            )
            changed[place : place + len(value)] = value
    return bytes(changed)
