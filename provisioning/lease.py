"""Renews an operation's lease from a thread, for as long as this process works on it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from django.db import InterfaceError, OperationalError, connection

from servers import lifecycle
from servers.models import Operation

log = logging.getLogger(__name__)


@contextmanager
def kept_lease(operation: Operation) -> Iterator[None]:
    """Hold the lease during one long step: a copy of an image may take minutes.

    If the process dies the thread dies with it, and the lease runs out.
    """
    over = Event()
    thread = Thread(target=_renew_until, args=[over, operation], daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _renew_until(over: Event, operation: Operation) -> None:
    try:
        while not over.wait(lifecycle.lease().total_seconds() / 3):
            try:
                lifecycle.renew(operation)
            except (OperationalError, InterfaceError) as error:
                # Postgres may be back before the lease ends.
                log.warning("the lease of %s is not renewed: %s", operation, error)
                connection.close()
    except lifecycle.LeaseLost:
        pass  # the worker's own next write finds out
    finally:
        connection.close()
