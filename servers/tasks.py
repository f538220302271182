"""The Celery tasks of credits, by the names that others send."""

import logging

from celery import shared_task

from billing import metering
from servers import dunning

log = logging.getLogger(__name__)


@shared_task(name="servers.meter")
def meter() -> None:
    """Charge what is due, and see to the accounts that it leaves short.  A few ticks may run at once."""
    try:
        dunning.tick()
    except metering.TickInProgress:
        log.warning("nothing is charged now: as many workers as there may be are still at it, or frozen")


@shared_task(name="servers.review_account")
def review_account(account_id: int) -> None:
    dunning.review(account_id)
