"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: says what was found, where, and what to do.

    Commands print its message alone and leave with exit code 2; ``--debug``
    shows the traceback as well.
    """
