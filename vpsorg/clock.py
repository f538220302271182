"""The clock by which money is counted, and old news told from new: the database's, one for all machines."""

from datetime import datetime

from django.db import connection


def now() -> datetime:
    """This moment, even late in a long transaction.  A machine whose own clock is wrong charges right."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment
