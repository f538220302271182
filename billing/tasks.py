"""The Celery tasks of billing, by the names that others send."""

from celery import shared_task

from billing import months


@shared_task(name="billing.make_months")
def make_months() -> None:
    """See that the months to come have their tables before the first hour is charged in them."""
    months.make_ahead()
