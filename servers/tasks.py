"""The Celery tasks of credits, by the names that others send."""

import logging

from celery import shared_task

from servers import arrears, metering

log = logging.getLogger(__name__)


@shared_task(name="servers.meter")
def meter() -> None:
    """Charge what is due, and see to the accounts that it leaves short.  One tick at a time."""
    try:
        arrears.tick()
    except metering.TickUnderWay:
        log.info("the tick before is still under way")


@shared_task(name="servers.settle")
def settle(account_id: int) -> None:
    arrears.settle(account_id)
