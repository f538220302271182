"""The clock by which money is counted, and old news told from new: the database's, one for all machines."""

from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

AGREE = timedelta(minutes=5)


class ClocksDiffer(Exception):
    """One of two clocks is wrong, and nobody here can tell which."""


def now() -> datetime:
    """This moment, even late in a long transaction.  A machine whose own clock is wrong charges right."""
    return _database()


def require_agreement() -> None:
    """Raises ClocksDiffer when this machine's clock and the database's are more than AGREE apart.

    For what cannot be taken back: by a clock that jumped ahead, hours would be charged that are to come.
    """
    database, ours = _database(), timezone.now()
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
