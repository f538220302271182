"""The Celery tasks of credits and of automatic backups, by the names that others send."""

import logging

from celery import shared_task

from billing import metering
from core import clock
from servers import backup_services, dunning

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


@shared_task(name="servers.take_due_backups")
def take_due_backups() -> None:
    backup_services.take_due_backups()


@shared_task(name="servers.verify_due_backups")
def verify_due_backups() -> None:
    backup_services.verify_due_backups()


@shared_task(name="servers.boot_due_backups")
def boot_due_backups() -> None:
    backup_services.boot_due_backups()


@shared_task(name="servers.remove_expired_backups")
def remove_expired_backups() -> None:
    try:
        backup_services.remove_expired_backups()
    except clock.ClocksDiffer as error:
        log.error("no backups are removed: %s", error)
