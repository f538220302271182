"""What is told to a person instead of a traceback."""


class LocalError(Exception):
    """Something a person can read and act on: what happened, where, and what to do."""
