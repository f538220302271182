"""Windows on a list: so many rows from a place, by number or by the row that they follow or precede.

A place by number moves when rows before it come or go.  A place by a row's id does not, and Postgres finds it
by the index that the list is ordered by.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from django.db.models import QuerySet


@dataclass(frozen=True)
class Window:
    """``limit`` rows of a list.

    Those after the first ``offset``; or those that follow the id ``after`` in the list's order; or, with
    ``before``, the last that precede this id, the nearest first.  ``before=END``: the last of all.
    """

    limit: int
    offset: int = 0
    after: int | None = None
    before: int | None = None


END = 0  # stands for the place behind the last row; no row has this id


class Windowed(Protocol):
    """A list that tells its rows and their number.  Each row has an ``id``."""

    def rows(self, window: Window) -> list[Any]: ...

    def count(self) -> int: ...


class WindowedQuerySet:
    """A queryset that is ordered by its primary key, in either direction."""

    def __init__(self, queryset: QuerySet[Any]) -> None:
        (key,) = queryset.query.order_by or queryset.model._meta.ordering or ["unordered"]
        if key not in {"pk", "-pk", "id", "-id"}:
            raise TypeError(f"a list that is ordered by {key} cannot be paged: order it by pk")
        self._queryset = queryset
        self._newest_first = str(key).startswith("-")

    def rows(self, window: Window) -> list[Any]:
        found = self._queryset
        if window.before is not None:
            found = found.reverse()
        place = window.before or window.after
        if place:
            upwards = self._newest_first == (window.before is not None)
            found = found.filter(**{"pk__gt" if upwards else "pk__lt": place})
        return list(found[window.offset : window.offset + window.limit])

    def count(self) -> int:
        return self._queryset.count()
