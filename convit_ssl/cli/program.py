"""What the ``convit-ssl`` script runs. Ctrl-C gives no traceback from its first lines on."""

from __future__ import annotations

import signal


def main() -> int:
    """Run the command that the command line names, and end the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command listens
    from convit_ssl.cli.main import main as run

    return run()
