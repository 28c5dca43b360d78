"""Exceptions for what a user can mend."""


class UserError(Exception):
    """Bad configuration, data, shapes or files; the message is one line: what is wrong and how to mend it."""


class Diverged(UserError):
    """No seed of a run has a loss and gradient that are finite."""
