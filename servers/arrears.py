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

from accounts import ledger
from accounts.models import Account
from accounts.webhooks.events import Event
from accounts.webhooks.services import announce
from servers import metering, services
from servers.credits import SUSPENDED_BY_BILLING, required_runway, spend_per_hour, suspends_at, to_be_paid
from servers.models import Operation, Server
from servers.selectors import servers_of
from servers.states import SETTLED, OperationKind, OperationStatus, SuspensionReason
from vpsorg import clock
from vpsorg.api.times import utc
from vpsorg.errors import Refusal

log = logging.getLogger(__name__)

BILLING = "billing"
AGAIN_AFTER = timedelta(minutes=10)  # what a host refused is asked of it again


def tick() -> Collection[int]:
    """Charge what is due, then see to every account that is in arrears or was.  Returns the accounts charged.

    Raises TickUnderWay and ClocksDiffer, as the meter does.
    """
    accounts = metering.meter(then=settle)
    settle_all()
    return accounts


def settle_all(now: datetime | None = None) -> None:
    """Settle all accounts that are below zero, and all with servers that billing suspended."""
    concerned = Account.objects.filter(
        Q(below_zero_since__isnull=False) | Q(pk__in=suspended_by_billing().values("account"))
    )
    for account_id in concerned.order_by("pk").values_list("pk", flat=True):
        try:
            settle(account_id, now)
        except Exception:
            log.exception("account %s could not be settled", account_id)


@transaction.atomic
def settle(account_id: int, now: datetime | None = None) -> None:
    """Do what an account's balance asks for now.  Safe to call twice, late, or for nothing."""
    now = now or clock.now()
    account = ledger.locked(Account(pk=account_id))
    _warn(account, now)
    due_at = suspends_at(account)
    if due_at is None:
        bring_back = partial(services.unsuspend_server, reason=SuspensionReason.BILLING)
        _each(suspended_by_billing().filter(account=account), bring_back, now)
    elif now >= due_at:
        suspend = partial(services.suspend_server, reason=SuspensionReason.BILLING)
        is_news = not _is_told(account)
        if _each(servers_of(account).filter(status__in=SETTLED), suspend, now) and is_news:
            _tell_suspended(account)


def suspended_by_billing() -> QuerySet[Server]:
    return Server.objects.filter(SUSPENDED_BY_BILLING, deleted_at=None)


def suspended_for_long(now: datetime) -> QuerySet[Server]:
    """What billing suspended VPS_TERMINATE_AFTER_DAYS ago or earlier: staff decide what becomes of it."""
    long_ago = now - timedelta(days=settings.VPS_TERMINATE_AFTER_DAYS)
    return suspended_by_billing().filter(suspended_at__lte=long_ago)


def _each(servers: QuerySet[Server], order: Callable[..., Operation | None], now: datetime) -> list[Server]:
    """Order it of each.  One that is busy is left to the next time; one may be gone meanwhile."""
    ordered = []
    for server in servers.exclude(_failed_lately(now)).order_by("pk"):
        try:
            order(server=server, requested_by=BILLING)
            ordered.append(server)
        except Refusal as refusal:
            log.info("server %s: %s", server.uuid, refusal)
    return ordered


def _failed_lately(now: datetime) -> Exists:
    """Its host would say the same again, and webhooks hear of each order and each failure."""
    failed = Operation.objects.filter(
        server=OuterRef("pk"),
        requested_by=BILLING,
        status=OperationStatus.FAILED,
        finished_at__gt=now - AGAIN_AFTER,
    )
    return Exists(failed)


def _warn(account: Account, now: datetime) -> None:
    """Once when its credits do not last any more, and once for each time below zero."""
    told_at = None
    if account.below_zero_since is not None:
        told_at = account.below_zero_since  # to the microsecond: so it is known which time was told of
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
        requested_by=BILLING,
        created_at__gte=account.below_zero_since,
    ).exists()


def _tell_suspended(account: Account) -> None:
    """Of all that is suspended, or will be as soon as it is not busy any more."""
    servers = to_be_paid(account).order_by("pk")
    names = ", ".join(server.name for server in servers)
    log.warning("account %s: suspended for a balance of %s: %s", account.uuid, account.balance, names)
    told = [{"id": server.pk, "uuid": str(server.uuid), "name": server.name} for server in servers]
    payload = {"balance": float(account.balance), "servers": told}
    announce(account_id=account.pk, event=Event.ACCOUNT_SUSPENDED, payload=payload)
