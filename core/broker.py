"""Messages to workers: a message says only "look at this row", and is sent once the row is there.

A message that is lost costs a delay and no more: the scheduler finds the row.  So no customer waits for a
broker that is away or hangs: a process that has failed to send a message sends none for a moment.
"""

import logging
from typing import Any

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

from core.delays import DELAY
from core.outage import Outage

log = logging.getLogger(__name__)

# The limit of each wait for the socket.  kombu waits up to three times a message: 0.4 s in all, measured.
ANSWERS_WITHIN_S = 0.125
OUTAGE = Outage(lasts_s=2)


def send_on_commit(task: str, row_id: int, *, delay_s: float = 0, **options: Any) -> None:
    """Have a worker look at a row when this transaction is committed; ``options`` are Celery's.

    The worker holds the message back for ``delay_s`` seconds from when it gets it.
    """
    headers = {DELAY: delay_s} if delay_s else None

    def send() -> None:  # no partial: Django logs the function's __name__ when it fails
        if OUTAGE.is_on:
            log.warning("no message about %s %s: the broker did not answer a moment ago", task, row_id)
            return
        try:
            current_app.send_task(task, [row_id], headers=headers, **options)
        except (OperationalError, OSError) as error:
            OUTAGE.begins()
            log.error("no message about %s %s: %s", task, row_id, error)

    transaction.on_commit(send, robust=True)


def do_not_wait() -> None:
    """Give the broker little time to answer: for processes that customers wait for."""
    current_app.conf.broker_transport_options |= {
        "socket_timeout": ANSWERS_WITHIN_S,
        "socket_connect_timeout": ANSWERS_WITHIN_S,
    }
