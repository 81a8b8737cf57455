"""The one exception for a user's mistake."""


class UserError(ValueError):
    """A mistake that the user can mend: what is wrong, where, and what to do.

    The command line prints the message alone, without a traceback, and exits
    with status 2.
    """
