"""Errors that a person reads instead of a traceback."""


class LocalError(Exception):
    """An error with a sentence: what happened, where, and what to do."""
