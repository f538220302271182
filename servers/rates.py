"""What each server costs, and from when on: rows that are added and never changed.

``lifecycle`` and ``services`` call ``record_rate`` in the transaction that changes
what a server costs, so that the meter may come ten days late and still charge
what was true.
"""

from datetime import datetime, timedelta

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
    price = _price_now(Server.objects.get(pk=server_id))
    meter = Meter.objects.select_for_update().filter(server_id=server_id).first()
    if meter is None:
        if price != FREE:
            now = clock.now()
            Meter.objects.create(server_id=server_id, began_at=now, next_at=now)
            Rate.objects.create(server_id=server_id, since=now, **price._asdict())
        return
    last = Rate.objects.filter(server_id=server_id).latest("since")
    if price != last.price:
        # Clocks jump: no rate is older than the one before, nor than an hour
        # that is charged already.
        charged = meter.next_at - HOUR if meter.next_at else last.since
        since = max(clock.now(), last.since + MOMENT, charged + MOMENT)
        Rate.objects.create(server_id=server_id, since=since, **price._asdict())


def _price_now(server: Server) -> Price:
    return FREE if server.status in FREE_STATUSES else server.price


def hour_of(moment: datetime, began_at: datetime) -> datetime:
    """When the hour began that a moment lies in, of a server whose hours are counted from ``began_at``."""
    return began_at + max(0, (moment - began_at) // HOUR) * HOUR


def first_hour_from(moment: datetime, began_at: datetime) -> datetime:
    """The first of these hours that begins at the moment or later."""
    return began_at + max(0, -((began_at - moment) // HOUR)) * HOUR
