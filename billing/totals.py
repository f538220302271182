"""What one subject has cost, month by month; also in months whose lines were detached."""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from django.db import connection

from billing.models import Meter

MONTHS = """
    SELECT to_char(month, 'YYYY-MM'), component, sum(hours)::int, -sum(amount) FROM (
        SELECT date_trunc('month', day)::date AS month, component, bit_count(hours::bit(24)) AS hours, amount
        FROM billing_usage WHERE meter_id = ANY(%(meters)s) AND account_id = %(account_id)s
        UNION ALL
        SELECT month, component, hours, amount FROM billing_archivedusage archived
        JOIN billing_meter meter ON meter.id = archived.meter_id
        WHERE meter_id = ANY(%(meters)s) AND archived.account_id = %(account_id)s
    ) lines GROUP BY month, component ORDER BY month DESC, component
"""


class MonthOfComponent(NamedTuple):
    month: str
    component: str
    hours: int
    amount: Decimal


def months_of(account_id: int, meters: list[Meter]) -> list[MonthOfComponent]:
    """The newest month first."""
    with connection.cursor() as cursor:
        cursor.execute(MONTHS, {"account_id": account_id, "meters": [meter.pk for meter in meters]})
        return [MonthOfComponent(*row) for row in cursor.fetchall()]


def charged_between(meters: list[Meter]) -> tuple[datetime | None, datetime | None]:
    """When the first hour began, and when the next hour to be charged begins; None if there is none."""
    began = [meter.began_at for meter in meters if meter.began_at is not None]
    due = [meter.due_at for meter in meters if meter.due_at is not None]
    return min(began, default=None), min(due, default=None)
