"""The process that `convit_ssl.train` starts: a training command that hands its error back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from convit_ssl.engines.launch.early_signals import own_process
from convit_ssl.process_end import run_to_end


def main(said: str, arguments: list[str]) -> int:
    """Run the experiment.

    Args:
        said: the file for an error that the user can mend.
        arguments: the experiment's options.
    """
    own_process()
    import convit_ssl.adapters  # noqa: F401  installs what VISSL needs
    from convit_ssl.engines.callbacks.output import printable_output, spell_out
    from convit_ssl.engines.launch.command import process_started, run_experiment
    from convit_ssl.errors import UserError

    spell_out(sys.stdout)
    try:
        with printable_output():
            return run_experiment(arguments, process_started())
    except UserError as error:
        told = {"message": str(error), "code": error.code, "exit_code": error.exit_code}
        Path(said).write_text(json.dumps(told), encoding="utf-8")
        return error.exit_code


if __name__ == "__main__":
    run_to_end(lambda: main(sys.argv[1], sys.argv[2:]))
