"""The months of usage: made ahead, and detached when they are closed and proven."""

from datetime import date, datetime

from django.db import connection, transaction

from billing import ledger_audit
from billing.costs import month_after, month_of, start_of
from billing.models import DetachedMonth, Meter
from core import clock, partitions
from core.errors import Refusal

TABLE = "billing_usage"
AHEAD = 3  # months

ARCHIVE = """
    INSERT INTO billing_archivedusage (meter_id, account_id, month, hours, amount)
    SELECT meter_id, account_id, %(month)s, sum(bit_count(hours::bit(24))), sum(amount)
    FROM billing_usage WHERE day >= %(month)s AND day < %(end)s GROUP BY meter_id, account_id
"""


def make_ahead() -> None:
    """See that this month and the next ones have their tables."""
    month = month_of(clock.now())
    for _ in range(AHEAD + 1):
        make(month.date())
        month = month_after(month)


def make(month: date) -> None:
    """Make the table of a month, unless it is there.  Raises MonthDetached if it was taken out."""
    if DetachedMonth.objects.filter(month=month).exists():
        raise MonthDetached(f"The lines of {month:%Y-%m} were detached: nothing is charged for that month.")
    partitions.make(TABLE, month)


class MonthDetached(Exception):
    """The month was detached: its hours cannot be charged any more."""


@transaction.atomic
def detach(month: date) -> str:
    """Take the lines of a closed month out of the ledger.  Returns the name of their table, which stays.

    Balances and totals keep counting them: their sums are written down.  Refuses a month that is not over,
    in which something is still to be charged, or that the ledger audit has not proven.
    """
    first, end = start_of(month), month_after(start_of(month))
    if month not in partitions.months_of(TABLE):
        raise Refusal(f"There is no month {month:%Y-%m}.", code="no_such_month")
    if end > clock.now() or Meter.objects.filter(due_at__lt=end).exists():
        raise Refusal("This month is not closed: something is still to be charged.", code="month_open")
    unproven = ledger_audit.unproven(first)
    if unproven:
        raise Refusal(
            f"{len(unproven)} accounts are not proven in this month. Run audit_ledger, and put right what "
            "it finds.",
            code="month_unproven",
        )
    with connection.cursor() as cursor:
        cursor.execute(ARCHIVE, {"month": month, "end": end.date()})
    DetachedMonth.objects.create(month=month)
    return partitions.detach(TABLE, month)


def ensure(first: datetime, last: datetime) -> None:
    """See that each month from one moment to another has its table, or was detached."""
    month = month_of(first)
    missing = set(partitions.months_of(TABLE)) | set(DetachedMonth.objects.values_list("month", flat=True))
    while month <= last:
        if month.date() not in missing:
            partitions.make(TABLE, month.date())
        month = month_after(month)
