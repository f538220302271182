"""What an account spends, and whether its credits last."""

from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db.models import F, Sum

from accounts.models import Account
from servers.selectors import servers_of
from servers.states import PUBLIC_STATUSES, ServerStatus
from vpsorg.errors import InsufficientCredits

# One that is being made, or comes back, will cost.
COSTLY = set(PUBLIC_STATUSES) - {ServerStatus.ERROR, ServerStatus.SUSPENDED}


def spend_per_hour(account: Account) -> Decimal:
    """What all that the account runs costs for an hour, with backups."""
    costly = servers_of(account).filter(status__in=COSTLY)
    per_hour: Decimal = costly.aggregate(
        sum=Sum(F("price_hourly") + F("backups_hourly"), default=Decimal(0))
    )["sum"]
    return per_hour


def required_runway(per_hour: Decimal) -> Decimal:
    return per_hour * settings.VPS_MIN_RUNWAY_HOURS


def require_runway(account: Account, *, more: Decimal) -> None:
    """Refuse what would cost so much more an hour, if the credits would not last for VPS_MIN_RUNWAY_HOURS.

    The caller holds the account's lock.
    """
    required = required_runway(spend_per_hour(account) + more)
    if account.balance < required:
        raise InsufficientCredits(
            f"This needs {required:.2f} credits, {settings.VPS_MIN_RUNWAY_HOURS} hours of all your servers; "
            f"you have {account.balance:.2f}.",
            balance=account.balance,
            required=required,
        )


def runs_out_at(balance: Decimal, per_hour: Decimal, now: datetime) -> datetime | None:
    """When a balance is used up at this rate.  None: never, not within a century, or it is already."""
    if not per_hour or not 0 <= balance <= per_hour * 24 * 36_500:
        return None
    return now + timedelta(hours=float(balance / per_hour))
