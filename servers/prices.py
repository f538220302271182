"""What a server is sold at: its plan's price when it was ordered, and its backups' while it has them.

A plan that becomes dearer changes nothing for servers that are there already.
"""

from decimal import Decimal

from django.conf import settings

from billing.prices import Price, rounded
from plans.models import Plan

SUBJECT = "server"  # billing's subject_kind
USAGE, BACKUPS = "usage", "backups"  # the components of a server

Prices = dict[str, Price]


def prices_of(hourly: Decimal, monthly: Decimal, *, backups: bool) -> Prices:
    """By component.  With backups, VPS_BACKUP_PRICE_RATIO of it for them."""
    prices = {USAGE: Price(hourly, monthly)}
    if backups:
        prices[BACKUPS] = price_of_backups(prices[USAGE])
    return prices


def prices_of_plan(plan: Plan, *, backups: bool) -> Prices:
    return prices_of(plan.price_hourly, plan.price_monthly, backups=backups)


def price_of_backups(usage: Price) -> Price:
    ratio: Decimal = settings.VPS_BACKUP_PRICE_RATIO
    return Price(rounded(usage.hourly * ratio), rounded(usage.monthly * ratio))
