"""What happens when credits run out, and when they are back.

An account is warned once when its balance does not last for VPS_MIN_RUNWAY_HOURS,
and again when it falls below zero.  Below zero for VPS_GRACE_HOURS, its servers are
suspended.  With a balance of zero or more, what billing suspended comes back; what
staff suspended does not.  Nothing is ever deleted here: staff are shown what has
been suspended for long.
"""

import logging
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.actors import acting_as, system_actor
from accounts.models import Account
from billing import ledger, metering, reviews
from billing.runway import spend_per_hour, suspends_at
from core import clock
from core.api.answers import utc
from core.errors import Refusal
from servers import services
from servers.models import Operation, Server
from servers.runway import required_runway
from servers.selectors import servers_of
from servers.states import (
    CHANGEABLE,
    PUBLIC_STATUSES,
    OperationKind,
    OperationStatus,
    ServerStatus,
    SuspensionReason,
)
from webhooks.events import Event
from webhooks.services import announce

log = logging.getLogger(__name__)

DUNNING = system_actor("dunning")
AGAIN_AFTER = timedelta(minutes=10)  # until a suspension that a host refused is ordered again
SOON = timedelta(minutes=1)  # until busy servers are looked at again
LOOK_AGAIN = timedelta(hours=1)  # the longest until an account that owes is looked at again
# Servers that are being made or unsuspended will cost.
COSTLY = set(PUBLIC_STATUSES) - {ServerStatus.ERROR, ServerStatus.SUSPENDED}
SUSPENDED_BY_BILLING = Q(status=ServerStatus.SUSPENDED, suspended_for=SuspensionReason.BILLING)


def tick() -> Collection[int]:
    """Charge what is due, and do what the balances ask for that are to be looked at.

    Returns the accounts charged.  Raises TickInProgress and ClocksDiffer, as the metering does.
    """
    accounts = metering.meter(then=review_due)
    review_due()
    return accounts


def review_due(now: datetime | None = None) -> None:
    """Look at every account whose review is due."""
    for account_id in reviews.due(now or clock.now()):
        try:
            review(account_id, now)
        except Exception:
            log.exception("account %s could not be reviewed", account_id)


@acting_as(DUNNING)
@transaction.atomic
def review(account_id: int, now: datetime | None = None) -> None:
    """Do what an account's balance asks for now.  Safe to call twice, late, or for nothing."""
    now = now or clock.now()
    account = ledger.locked(Account(pk=account_id))
    _warn(account, now)
    due_at = suspends_at(account)
    if due_at is None:
        again_at = _bring_back(account, now)
    elif now < due_at:
        again_at = min(due_at, now + LOOK_AGAIN)
    else:
        again_at = _suspend(account, now)
    reviews.reviewed(account, again_at=again_at)


def _bring_back(account: Account, now: datetime) -> datetime | None:
    """Order the servers that billing suspended to be unsuspended.  Returns when to look at it again."""
    suspended = suspended_by_billing().filter(account=account)
    _each(suspended, partial(services.unsuspend_server, reason=SuspensionReason.BILLING), now)
    if not suspended.exists():
        return None
    return now + (SOON if suspended.exclude(_failed_lately(now)).exists() else AGAIN_AFTER)


def _suspend(account: Account, now: datetime) -> datetime:
    """Order the servers of the account to be suspended.  Returns when to look at it again."""
    is_news = not _is_told(account)
    suspend = partial(services.suspend_server, reason=SuspensionReason.BILLING)
    if _each(servers_of(account).filter(status__in=CHANGEABLE), suspend, now) and is_news:
        _tell_suspended(account)
    return now + (SOON if servers_of(account).filter(status__in=COSTLY).exists() else LOOK_AGAIN)


def to_be_paid(account: Account) -> QuerySet[Server]:
    """The servers that the account runs, and those that billing suspended: they come back when it pays."""
    return servers_of(account).filter(Q(status__in=COSTLY) | SUSPENDED_BY_BILLING)


def suspended_by_billing() -> QuerySet[Server]:
    return Server.objects.filter(SUSPENDED_BY_BILLING, deleted_at=None)


def suspended_for_long(now: datetime) -> QuerySet[Server]:
    """Servers that billing suspended VPS_TERMINATE_AFTER_DAYS ago or earlier: staff decide about them."""
    long_ago = now - timedelta(days=settings.VPS_TERMINATE_AFTER_DAYS)
    return suspended_by_billing().filter(suspended_at__lte=long_ago)


def _each(servers: QuerySet[Server], order: Callable[..., Operation | None], now: datetime) -> list[Server]:
    """Give each server this order.  Busy servers are left to the next review; deleted ones are skipped."""
    ordered = []
    for server in servers.exclude(_failed_lately(now)).order_by("pk"):
        try:
            order(server=server)
            ordered.append(server)
        except Refusal as refusal:
            log.info("server %s: %s", server.uuid, refusal)
    return ordered


def _failed_lately(now: datetime) -> Exists:
    """Whether this failed a short while ago: its host would fail again, and webhooks tell of each failure."""
    failed = Operation.objects.filter(
        server=OuterRef("pk"),
        actor_kind=DUNNING.kind,
        actor_id=DUNNING.id,
        status=OperationStatus.FAILED,
        finished_at__gt=now - AGAIN_AFTER,
    )
    return Exists(failed)


def _warn(account: Account, now: datetime) -> None:
    """Warn an account once when its credits do not last, and once for each time below zero."""
    told_at = None
    if account.below_zero_since is not None:
        told_at = account.below_zero_since  # the same moment: it names the time below zero that was told of
    elif account.balance < required_runway(account):
        told_at = account.warned_at or now
    if told_at == account.warned_at:
        return
    account.warned_at = told_at
    account.save(update_fields=["warned_at"])
    if told_at is not None:
        _tell_balance_low(account)


def _tell_balance_low(account: Account) -> None:
    log.warning("account %s: its balance of %s does not last", account.uuid, account.balance)
    due_at = suspends_at(account)
    payload = {
        "balance": float(account.balance),
        "spend_per_hour": float(spend_per_hour(account)),
        "suspends_at": due_at and utc(due_at),
    }
    announce(account_id=account.pk, event=Event.BALANCE_LOW, payload=payload)


def _is_told(account: Account) -> bool:
    """Whether servers were ordered to be suspended before, since the balance fell below zero.

    More follow: what was busy, and what could not be suspended and is ordered anew.
    """
    return Operation.objects.filter(
        server__account=account,
        kind=OperationKind.SUSPEND,
        actor_kind=DUNNING.kind,
        actor_id=DUNNING.id,
        created_at__gte=account.below_zero_since,
    ).exists()


def _tell_suspended(account: Account) -> None:
    """Tell the customer of all servers that are suspended, or will be once they are not busy."""
    servers = to_be_paid(account).order_by("pk")
    names = ", ".join(server.name for server in servers)
    log.warning("account %s: suspended for a balance of %s: %s", account.uuid, account.balance, names)
    told = [{"id": server.pk, "uuid": str(server.uuid), "name": server.name} for server in servers]
    payload = {"balance": float(account.balance), "servers": told}
    announce(account_id=account.pk, event=Event.ACCOUNT_SUSPENDED, payload=payload)
