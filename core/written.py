"""Keeps an instance in step with an UPDATE that was written by a query."""

from collections.abc import Mapping
from typing import Any

from django.db.models import Model
from django.db.models.expressions import Combinable, Func


def take_over(row: Model, changes: Mapping[str, Any]) -> None:
    """Give ``row`` what was just written to its columns.

    Only Postgres knows what an expression such as ``Now()`` came to: such a column is read when it is needed.
    """
    for column, value in changes.items():
        if isinstance(value, Combinable | Func):
            row.__dict__.pop(column, None)
        else:
            setattr(row, column, value)
