"""The exceptions a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: says what was found, where, and what to do.

    Commands print its message alone and leave with its exit code; ``--debug``
    shows the traceback as well.
    """

    exit_code = 2


class TemporaryError(UserError):
    """Something that passes: the same command may well succeed later, so a job is requeued."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h
