"""Renews a lease from a thread, for as long as this process works on the row."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

from django.db import Error, connection

from core import leases
from core.database import is_unavailable
from core.leases import LeasedWork

log = logging.getLogger(__name__)


@contextmanager
def kept_lease(row: LeasedWork, lease: timedelta) -> Iterator[None]:
    """Hold the lease during long work: a copy of an image may take minutes.

    If the process dies the thread dies with it, and the lease runs out.
    """
    over = Event()
    thread = Thread(target=_renew_until, args=[over, row, lease], daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _renew_until(over: Event, row: LeasedWork, lease: timedelta) -> None:
    try:
        while not over.wait(lease.total_seconds() / 3):
            try:
                leases.renew(row, lease)
            except Error as error:
                if not is_unavailable(error):
                    raise
                # Postgres may be back before the lease ends.
                log.warning("the lease of %s is not renewed: %s", row, error)
                connection.close()
    except leases.LeaseLost:
        pass  # the worker's next write raises LeaseLost
    finally:
        connection.close()
