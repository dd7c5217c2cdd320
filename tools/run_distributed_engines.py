"""Run an experiment, as VISSL's tool of the same name does.

python tools/run_distributed_engines.py config=convit_dino data=digits run=cpu trunk=convit_nano
"""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback until the command listens

import convit_ssl.adapters  # noqa: F401 spawned processes import this file, and need it too
from convit_ssl.cli.main import run_program

if __name__ == "__main__":
    run_program("train", sys.argv[1:])
