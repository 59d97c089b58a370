"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input. Its text is one line (or a few) that says what is wrong and what to write instead;
    programs print it without a traceback."""
