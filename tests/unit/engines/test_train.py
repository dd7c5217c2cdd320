"""What surrounds VISSL's trainer in a process."""

from __future__ import annotations

import gc

from convit_ssl.engines.train import imports_uncollected


def test_the_collector_passes_over_imported_modules_while_a_run_trains() -> None:
    with imports_uncollected():
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < gc.get_freeze_count()
    assert gc.get_freeze_count() == 0
