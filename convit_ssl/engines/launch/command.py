"""From a command line to a run. Misspelled options are refused before PyTorch is imported."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from convit_ssl.engines.callbacks.output import lasting_output
from convit_ssl.engines.launch.early_signals import signals_outside_training
from convit_ssl.engines.options.early_words import refuse_unknown
from convit_ssl.errors import coded
from convit_ssl.once import within_command


def run_experiment(arguments: Sequence[str], started: float | None = None) -> int:
    """Run an experiment from its command line. Returns the exit code.

    Args:
        arguments: ``config=NAME`` and overrides.
        started: `time.time()` at the command's start.

    Raises:
        UserError: what the user can mend; for misspelled options, before PyTorch is imported.
    """
    started = started or time.time()
    with signals_outside_training(), lasting_output(), within_command():
        with coded("options"):
            refuse_unknown(arguments)
            from convit_ssl.engines.options.compose import compose_experiment

            composed = compose_experiment(arguments)
        if not composed.is_ours:
            from convit_ssl.engines.launch.vissl_run import run_vissl

            return run_vissl(list(arguments))
        from convit_ssl.engines.launch.start import launch

        return launch(composed, arguments, started)


def process_started() -> float:
    """`time.time()` when this process began, where the system tells; else now."""
    try:
        fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return time.time()
    since_boot = float(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5)
    return min(time.time(), time.time() - uptime + since_boot)  # a container may count otherwise
