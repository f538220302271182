"""What each server costs, and from when on: rows that are final once an hour has begun with them.

``lifecycle`` and ``services`` call ``record_rate`` in the transaction that changes
what a server costs, so that the meter may come ten days late and still charge
what was true.  What changes twice before the next hour begins leaves one row, so
that there are no more rates than hours, whatever a customer switches on and off.
"""

from datetime import datetime, timedelta

from django.db.models import Value
from django.db.models.functions import Coalesce

from servers.models import Meter, Rate, Server
from servers.prices import FREE, Price
from servers.states import FREE_STATUSES
from vpsorg import clock

HOUR = timedelta(hours=1)
MOMENT = timedelta(microseconds=1)


def record_rate(server_id: int) -> None:
    """Write what a server costs from now on, if that is something else than before.

    The caller's transaction has written the server's row, and so holds its lock.
    The first rate starts the server's meter.
    """
    price = price_now(Server.objects.get(pk=server_id))
    meter = Meter.objects.select_for_update().filter(server_id=server_id).first()
    if meter is None:
        if price != FREE:
            now = clock.now()
            Meter.objects.create(server_id=server_id, began_at=now, next_at=now)
            Rate.objects.create(server_id=server_id, since=now, **price._asdict())
        return
    last = Rate.objects.filter(server_id=server_id).latest("since")
    if price == last.price:
        return
    # Clocks jump: no rate is older than the one before, nor than an hour
    # that is charged already.
    charged = meter.next_at - HOUR if meter.next_at else last.since
    since = max(clock.now(), last.since + MOMENT, charged + MOMENT)
    if first_hour_from(last.since, meter.began_at) == first_hour_from(since, meter.began_at):
        Rate.objects.filter(pk=last.pk).update(since=since, **price._asdict())
    else:
        Rate.objects.create(server_id=server_id, since=since, **price._asdict())


def rates_for(server_id: int, first: datetime, last: datetime) -> list[Rate]:
    """What a server's hours cost from the beginning of ``first``'s month until ``last``, oldest first."""
    month = month_of(first)
    until = Rate.objects.filter(server_id=server_id, since__lte=last)
    before = until.filter(since__lte=month).order_by("-since").values("since")[:1]
    return list(until.filter(since__gte=Coalesce(before, Value(month))).order_by("since"))


def price_now(server: Server) -> Price:
    """What a server costs in the status that it is in."""
    return FREE if server.status in FREE_STATUSES else server.price


def hour_of(moment: datetime, began_at: datetime) -> datetime:
    """When the hour began that a moment lies in, of a server whose hours are counted from ``began_at``."""
    return began_at + max(0, (moment - began_at) // HOUR) * HOUR


def first_hour_from(moment: datetime, began_at: datetime) -> datetime:
    """The first of these hours that begins at the moment or later."""
    return began_at + max(0, -((began_at - moment) // HOUR)) * HOUR


def month_of(moment: datetime) -> datetime:
    """When the calendar month (UTC) began that a moment lies in."""
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
