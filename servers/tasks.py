"""The Celery tasks of credits, by the names that others send."""

from celery import shared_task

from servers import arrears, metering


@shared_task(name="servers.meter")
def meter() -> None:
    """Charge what is due, and see to the accounts that it leaves short."""
    arrears.settle_all(metering.meter())


@shared_task(name="servers.settle")
def settle(account_id: int) -> None:
    arrears.settle(account_id)
