"""``bench data --formats``."""

from __future__ import annotations

import pytest

from convit_ssl.bench import format_cases, formats


def test_every_format_is_read_as_by_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (formats, format_cases):
        monkeypatch.setattr(module, "SIDE", 256)
    monkeypatch.setattr(formats, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(formats, "CASES", [c for c in formats.CASES if "slide" not in c.name])
    rows = formats.measure(1)  # raises where numbers differ
    assert "NPY (numpy)" in {row["format"] for row in rows}
    assert all(len(line) == len(formats.COLUMNS) for line in formats.cells(rows))
