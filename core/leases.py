"""Work that is a row: due from a moment on, and done by one worker at a time, for as long as its lease lasts.

A worker takes a row by one UPDATE whose WHERE clause says that nobody holds the row.  Each later write of the
worker asks ``WHERE attempt = mine`` (the fence): a worker that lost its lease cannot write.  A lease that ran
out means that the worker died, so another worker takes the row.  All times are Postgres's.

A lane is a limited resource that rows share, such as a host or a customer: only so many of them are under way
at once.  A row that finds its lane full is marked, and costs nothing until a seat is free: the worker that
lets go of another row of the lane wakes the ``next_waiting`` row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeVar

from django.db import models, transaction
from django.db.models import Exists, F, Q, QuerySet
from django.db.models.functions import Now

from core import locks
from core.written import take_over


class LeaseLost(Exception):
    """The row is no longer this worker's: it was cancelled, or taken over after the lease ended."""


class LeasedWork(models.Model):
    """The columns of such a row.  A child says which of its rows are ``OPEN``, and so not over."""

    OPEN: ClassVar[Q]

    due_at = models.DateTimeField(db_default=Now(), help_text="Not before.")
    lease_until = models.DateTimeField(null=True, help_text="A worker is at it until then.")
    attempt = models.PositiveIntegerField(
        db_default=0, help_text="Of several workers, the last to begin may write."
    )
    waits = models.BooleanField(
        db_default=False, help_text="It could not begin: the worker that frees a seat wakes it."
    )

    class Meta:
        abstract = True

    @classmethod
    def may_begin(cls) -> Q:
        """A condition: nothing else must end before this row is begun."""
        return Q()


Work = TypeVar("Work", bound=LeasedWork)


def due(rows: QuerySet[Work], *, late: timedelta = timedelta()) -> QuerySet[Work]:
    """Those of the rows that a worker could take, and could have taken ``late`` ago."""
    return free(rows, late=late).filter(rows.model.OPEN, due_at__lte=Now() - late)


def free(rows: QuerySet[Work], *, late: timedelta = timedelta()) -> QuerySet[Work]:
    """Those of the rows that no worker holds, or has held for ``late``."""
    return rows.filter(Q(lease_until=None) | Q(lease_until__lt=Now() - late))


def under_way(rows: QuerySet[Work]) -> QuerySet[Work]:
    """Those of the rows that a worker holds."""
    return rows.filter(lease_until__gt=Now())


@dataclass(frozen=True)
class Lane(Generic[Work]):
    """A resource that all of ``rows`` need.  At most ``seats`` of them are under way at once.

    ``key`` is the lane's lock.  The order of ``rows`` says which of those that wait comes first.
    """

    key: str
    rows: QuerySet[Work]
    seats: int

    @property
    def has_seat(self) -> Q:
        """A condition for any row: whether one more may be under way."""
        if self.seats < 1:
            return Q(pk__in=[])
        return Q(~Exists(under_way(self.rows)[self.seats - 1 : self.seats]))


def next_waiting(rows: QuerySet[Work]) -> Work | None:
    """The row of a lane to wake, for a worker that has just let go of another.

    Several callers at once get different rows.
    """
    waiting = due(rows).filter(rows.model.may_begin(), waits=True)
    while row := waiting.first():
        if rows.filter(pk=row.pk, waits=True).update(waits=False):
            return row
    return None


def take(row: Work, *, lease: timedelta, lane: Lane[Work] | None = None, **changes: Any) -> bool:
    """Take the row, and write ``changes`` to it.  The instance stays as it was read.

    False if it is not due, is over, another worker holds it, or it must wait: then it is marked.
    """
    changes |= {"lease_until": Now() + lease, "attempt": F("attempt") + 1, "waits": False}
    rows = due(type(row)._default_manager.filter(pk=row.pk))
    can_begin = row.may_begin() if lane is None else row.may_begin() & lane.has_seat
    while not _take(rows.filter(can_begin), lane, changes):
        if not rows.update(waits=True) or not rows.filter(can_begin).exists():
            return False
        # A worker that let go just now looked for waiting rows before this row was marked: try again.
    return True


@transaction.atomic
def _take(rows: QuerySet[Work], lane: Lane[Work] | None, changes: Mapping[str, Any]) -> bool:
    if lane is not None:
        # Without the lock, two workers would count at once and both find the last seat.
        locks.lock_until_commit(lane.key)
    return rows.update(**changes) == 1


def held(row: Work) -> QuerySet[Work]:
    """The row while this worker may write to it: the fence.  Empty once it lost its lease."""
    rows: QuerySet[Work] = type(row)._default_manager.all()
    return rows.filter(row.OPEN, pk=row.pk, attempt=row.attempt, lease_until__isnull=False)


def write(row: LeasedWork, **changes: Any) -> None:
    """Write to the row as its worker.  Raises LeaseLost."""
    if not held(row).update(**changes):
        raise LeaseLost(f"{row} is no longer ours")
    take_over(row, changes)


def renew(row: LeasedWork, lease: timedelta) -> None:
    """Hold the row for another ``lease`` from now.  Raises LeaseLost."""
    write(row, lease_until=Now() + lease)


def postpone(row: LeasedWork, delay_s: float, **changes: Any) -> None:
    """Let go of the row, and have it done no sooner than ``delay_s`` seconds from now.  Raises LeaseLost."""
    write(row, lease_until=None, due_at=Now() + timedelta(seconds=delay_s), **changes)


def finish(row: LeasedWork, **changes: Any) -> None:
    """Let go of the row.  ``changes`` make it one that is over.  Raises LeaseLost."""
    write(row, lease_until=None, **changes)
