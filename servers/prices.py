"""What a server is sold at: its plan's price when it was ordered, and its backups' while it has them.

A plan that becomes dearer changes nothing for servers that run already.
"""

from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from django.conf import settings

from plans.models import Plan

SMALLEST = Decimal("0.0001")


class Price(NamedTuple):
    """Credits for an hour, and the most for a calendar month.  Named as the columns of ``Server`` are."""

    price_hourly: Decimal
    price_monthly: Decimal
    backups_hourly: Decimal
    backups_monthly: Decimal

    @property
    def hourly(self) -> Decimal:
        return self.price_hourly + self.backups_hourly


FREE = Price(Decimal(0), Decimal(0), Decimal(0), Decimal(0))


def price_of(hourly: Decimal, monthly: Decimal, *, backups: bool) -> Price:
    """With backups, VPS_BACKUP_PRICE_RATIO of it for them."""
    ratio: Decimal = settings.VPS_BACKUP_PRICE_RATIO if backups else Decimal(0)
    return Price(hourly, monthly, _rounded(hourly * ratio), _rounded(monthly * ratio))


def price_of_plan(plan: Plan, *, backups: bool) -> Price:
    return price_of(plan.price_hourly, plan.price_monthly, backups=backups)


def _rounded(amount: Decimal) -> Decimal:
    return amount.quantize(SMALLEST, ROUND_HALF_UP)
