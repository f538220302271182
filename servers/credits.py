"""What an account spends, and whether its credits last."""

from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db.models import F, Q, QuerySet, Sum

from accounts.models import Account
from servers.models import Operation, Server
from servers.prices import price_of
from servers.selectors import servers_of
from servers.states import OPEN_OPERATION, PUBLIC_STATUSES, OperationKind, ServerStatus, SuspensionReason
from vpsorg import clock
from vpsorg.errors import InsufficientCredits

# One that is being made, or comes back, will cost.
COSTLY = set(PUBLIC_STATUSES) - {ServerStatus.ERROR, ServerStatus.SUSPENDED}
SUSPENDED_BY_BILLING = Q(status=ServerStatus.SUSPENDED, suspended_for=SuspensionReason.BILLING)


def spend_per_hour(account: Account) -> Decimal:
    """What all that the account runs costs for an hour, with backups."""
    return _per_hour(servers_of(account).filter(status__in=COSTLY))


def to_be_paid(account: Account) -> QuerySet[Server]:
    """What the account runs, and what billing suspended: it comes back when it is paid."""
    return servers_of(account).filter(Q(status__in=COSTLY) | SUSPENDED_BY_BILLING)


def required_runway(account: Account, *, more: Decimal = Decimal(0)) -> Decimal:
    """What VPS_MIN_RUNWAY_HOURS of all that was sold to the account cost, and of so much more an hour."""
    per_hour = _per_hour(to_be_paid(account)) + _dearer_by_resizes(account)
    return (per_hour + more) * settings.VPS_MIN_RUNWAY_HOURS


def require_runway(account: Account, *, more: Decimal = Decimal(0)) -> None:
    """Refuse what the credits would not last for VPS_MIN_RUNWAY_HOURS for.

    What was changed or ordered in the caller's transaction counts already; ``more``
    is what was not.  The caller holds the account's lock.
    """
    required = required_runway(account, more=more)
    if account.balance < required:
        raise InsufficientCredits(
            f"This needs {required:.2f} credits, {settings.VPS_MIN_RUNWAY_HOURS} hours of all your servers; "
            f"you have {account.balance:.2f}.",
            balance=account.balance,
            required=required,
        )


def suspends_at(account: Account) -> datetime | None:
    """When the servers of an account are suspended unless it is topped up; None while it owes nothing."""
    grace = timedelta(hours=settings.VPS_GRACE_HOURS)
    return account.below_zero_since and account.below_zero_since + grace


def require_grace(account: Account) -> None:
    """Refuse, once servers are due to be suspended, whatever would keep one busy or running."""
    due_at = suspends_at(account)
    if due_at is not None and clock.now() >= due_at:
        raise InsufficientCredits(
            f"Your balance has been below zero for {settings.VPS_GRACE_HOURS} hours. Top it up first.",
            balance=account.balance,
            required=Decimal(0),
        )


def _per_hour(servers: QuerySet[Server]) -> Decimal:
    per_hour: Decimal = servers.aggregate(
        sum=Sum(F("price_hourly") + F("backups_hourly"), default=Decimal(0))
    )["sum"]
    return per_hour


def _dearer_by_resizes(account: Account) -> Decimal:
    """What the resizes under way add for an hour.  One to a cheaper plan saves nothing until it is done."""
    resizing = servers_of(account).filter(status=ServerStatus.RESIZING)
    resizes = Operation.objects.filter(
        server__in=resizing, kind=OperationKind.RESIZE, status__in=OPEN_OPERATION
    ).select_related("server")
    return sum((max(Decimal(0), _difference(resize)) for resize in resizes), Decimal(0))


def _difference(resize: Operation) -> Decimal:
    """None any more, once its plan is adopted."""
    server, hourly, monthly = resize.server, resize.price_hourly, resize.price_monthly
    if hourly is None or monthly is None:
        return Decimal(0)
    return price_of(hourly, monthly, backups=server.backups_enabled).hourly - server.price.hourly


def runs_out_at(balance: Decimal, per_hour: Decimal, now: datetime) -> datetime | None:
    """When a balance is used up at this rate.  None: never, not within a century, or it is already."""
    if not per_hour or not 0 <= balance <= per_hour * 24 * 36_500:
        return None
    return now + timedelta(hours=float(balance / per_hour))
