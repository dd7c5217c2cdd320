"""The exceptions a user is meant to read."""

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can mend: says what was found, where, and what to do.

    Commands print its message alone and leave with its exit code; ``--debug``
    shows the traceback as well.

    Attributes:
        code: for programs: options, data, weights, training or output, where that is known.
            Messages may change; codes do not.
        exit_code: of a command.
    """

    code: str = "user"
    exit_code: int = 2


class TemporaryError(UserError):
    """Something that passes: the same command may well succeed later, so a job is requeued."""

    code = "temporary"
    exit_code = 75  # EX_TEMPFAIL of sysexits.h


@contextlib.contextmanager
def coded(code: str) -> Iterator[None]:
    """Give errors of the user's that leave here a code, where they have none of their own."""
    try:
        yield
    except UserError as error:
        if error.code == UserError.code:
            error.code = code
        raise


class StoppedBySignal(SystemExit):
    """A signal asked a command to stop; its exit code is 128 + the signal's number.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum
