"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """Bad configuration, data, shapes or files; the message is one line: what is wrong and how to mend it."""
