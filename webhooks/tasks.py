"""The Celery tasks of webhooks; other rooms send them by name."""

import logging
from concurrent.futures import ThreadPoolExecutor

from celery import shared_task
from django.db import connection

from core import broker, clock
from webhooks import delivery

log = logging.getLogger(__name__)

WAIT_S = 60  # a message waits no longer behind hung receivers: by then the sweep has sent another
SWEPT_AT_ONCE = 1000
THREADS, DELIVERED_HERE = 4, 50


@shared_task(name="webhooks.deliver")
def deliver(delivery_id: int, sent_at: str | None = None) -> None:
    if sent_at is None or clock.seconds_since(sent_at) <= WAIT_S:
        delivery.deliver(delivery_id)


@shared_task(name="webhooks.sweep")
def sweep() -> None:
    """Wake what is due: what failed before, and what was forgotten.  Remove what is old.

    Without a broker, deliver some of it here.
    """
    due = [row.pk for row in delivery.first_due_of_each_webhook()[:SWEPT_AT_ONCE]]
    sent_at = clock.now().isoformat()
    for delivery_id in due:
        delivery.wake(delivery_id, sent_at=sent_at)
    if due and broker.OUTAGE.is_on:
        with ThreadPoolExecutor(THREADS) as threads:
            for delivery_id in due[:DELIVERED_HERE]:
                threads.submit(_deliver_in_thread, delivery_id)
    delivery.remove_old_deliveries(SWEPT_AT_ONCE)


def _deliver_in_thread(delivery_id: int) -> None:
    try:
        delivery.deliver(delivery_id)
    except Exception:
        log.exception("delivery %d failed here", delivery_id)
    finally:
        connection.close()
