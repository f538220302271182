"""The database's clock: the only one by which money is counted and events are ordered."""

from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

AGREE = timedelta(minutes=5)


class ClocksDiffer(Exception):
    """The database's clock and this machine's differ too much; either may be wrong."""


def now() -> datetime:
    """The time now, not the transaction's start.  A machine with a wrong clock charges correctly."""
    return _database()


def seconds_since(moment: datetime | str) -> float:
    """How long ago a moment of this clock was; a message carries it as text."""
    since = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return (now() - since).total_seconds()


def require_agreement() -> None:
    """Raises ClocksDiffer when this machine's clock and the database's are more than AGREE apart.

    For what cannot be taken back: by a clock that jumped ahead, hours would be charged that are to come.
    """
    database, ours = _database(), timezone.now()  # noqa: TID251  (the one place that compares the two)
    if abs(database - ours) > AGREE:
        raise ClocksDiffer(
            f"By the database's clock it is {database:%Y-%m-%d %H:%M:%S} UTC, by this machine's "
            f"{ours:%Y-%m-%d %H:%M:%S}. Nothing is charged until the wrong one is set right."
        )


def _database() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment
