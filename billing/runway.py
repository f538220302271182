"""What an account spends, and whether its credits last.

An order needs credits for VPS_MIN_RUNWAY_HOURS of everything that the account then pays for.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection

from accounts.models import Account
from billing.prices import TO_BE_PAID, WILL_COST, rounded
from core import clock
from core.errors import InsufficientCredits

PER_HOUR = """
    SELECT coalesce(sum(round(price_hourly * quantity, 4)), 0) FROM billing_meter
    WHERE account_id = %s AND state = ANY(%s)
"""
# Inserts a review of each account whose warning does not fit its balance.
REVIEWS = """
    INSERT INTO billing_review (account_id, due_at)
    SELECT id, %(now)s FROM accounts_account account
    WHERE id = ANY(%(accounts)s) AND CASE WHEN below_zero_since IS NOT NULL
        THEN warned_at IS DISTINCT FROM below_zero_since
        ELSE (warned_at IS NOT NULL) <> (balance < %(hours)s * (
            SELECT coalesce(sum(round(price_hourly * quantity, 4)), 0) FROM billing_meter
            WHERE account_id = account.id AND state = ANY(%(states)s)
        )) END
    ON CONFLICT (account_id) DO UPDATE SET due_at = least(billing_review.due_at, excluded.due_at)
"""


def spend_per_hour(account: Account) -> Decimal:
    """The cost of an hour of everything that the account runs, or that is being made or unsuspended."""
    return _per_hour(account, WILL_COST)


def required_runway(account: Account, *, more: Decimal = Decimal(0)) -> Decimal:
    """The cost of VPS_MIN_RUNWAY_HOURS of everything sold to the account, and of ``more`` an hour.

    Servers that are suspended for billing count, too: they come back when the account has paid.
    """
    return (_per_hour(account, TO_BE_PAID) + more) * settings.VPS_MIN_RUNWAY_HOURS


def require_runway(account: Account, *, more: Decimal = Decimal(0)) -> None:
    """Refuse an order for which the credits would not last VPS_MIN_RUNWAY_HOURS.

    Meters that the caller's transaction has changed count as changed; ``more`` is the hourly price of what
    is not metered yet.  The caller holds the account's lock.
    """
    required = required_runway(account, more=more)
    if account.balance < required:
        raise InsufficientCredits(
            f"This needs {as_told(required)} credits, {settings.VPS_MIN_RUNWAY_HOURS} hours of all your "
            f"servers; you have {as_told(account.balance)}.",
            balance=account.balance,
            required=required,
        )


def as_told(amount: Decimal) -> str:
    """The amount with all its decimals, at least two: 0.4032, 0.40."""
    return f"{amount:.4f}".removesuffix("0").removesuffix("0")


def suspends_at(account: Account) -> datetime | None:
    """When the account's servers are suspended unless it is topped up; None while it owes nothing."""
    grace = timedelta(hours=settings.VPS_GRACE_HOURS)
    return account.below_zero_since and account.below_zero_since + grace


def is_due_to_be_suspended(account: Account) -> bool:
    due_at = suspends_at(account)
    return due_at is not None and clock.now() >= due_at


def require_grace(account: Account) -> None:
    """Refuse orders that keep a server busy or running once the account's servers are to be suspended."""
    if is_due_to_be_suspended(account):
        raise InsufficientCredits(
            f"Your balance has been below zero for {settings.VPS_GRACE_HOURS} hours. Top it up first.",
            balance=account.balance,
            required=Decimal(0),
        )


def runs_out_at(balance: Decimal, per_hour: Decimal, now: datetime) -> datetime | None:
    """When a balance is used up at this rate.  None: never, in over a century, or already used up."""
    if not per_hour or not 0 <= balance <= per_hour * 24 * 36_500:
        return None
    return now + timedelta(hours=float(balance / per_hour))


def ask_for_reviews(cursor: Any, accounts: Collection[int]) -> None:
    """Ask for a review of each account whose warning no longer fits its balance."""
    cursor.execute(
        REVIEWS,
        {
            "accounts": list(accounts),
            "now": clock.now(),
            "hours": settings.VPS_MIN_RUNWAY_HOURS,
            "states": list(TO_BE_PAID),
        },
    )


def _per_hour(account: Account, states: Collection[str]) -> Decimal:
    with connection.cursor() as cursor:
        cursor.execute(PER_HOUR, [account.pk, list(states)])
        (per_hour,) = cursor.fetchone()
    return rounded(per_hour)
