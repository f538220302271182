"""The meter: charges each started hour of each server once.

**What an hour is.**  A server's hours are counted from the moment when it was first
active, not from the clock's full hours: made and deleted in the same minute is one
hour, always.  An hour is charged when it begins, at the rate of that moment: a resize
counts from the next hour, and an hour that begins suspended is free.  It belongs to
the calendar month (UTC) that it begins in.

**A month never costs more than ``price_monthly``**: of several prices in a month, the
highest.  Backups have a limit of their own.

All of it follows from the rates (``servers.rates``) alone.  The meter may run late,
twice, or on two machines at once: the charges are the same.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from django.db import transaction
from django.db.models import QuerySet

from accounts import ledger
from accounts.models import Account, CreditEntry
from servers.models import Meter, Rate
from servers.rates import HOUR, MOMENT, first_hour_from, hour_of, month_of, rates_for
from vpsorg import clock
from vpsorg.only_one import only_one

log = logging.getLogger(__name__)

METERS_AT_ONCE = 50
HOURS_AT_ONCE = 48

Kind = CreditEntry.Kind


class Cost(NamedTuple):
    """What one hour costs, by kind of line; never 0."""

    hour: datetime
    kind: CreditEntry.Kind
    amount: Decimal


class TickUnderWay(Exception):
    """Somebody else charges already: there is nothing to do, and to wait for it would hold a worker up."""


def meter(
    now: datetime | None = None, then: Callable[[int], object] = lambda account_id: None
) -> Collection[int]:
    """Charge every hour that has begun and was not charged yet; ``then`` is for each account once it is.

    Returns the accounts that were looked at.  In transactions of one account and at
    most METERS_AT_ONCE × HOURS_AT_ONCE hours.  A server that cannot be charged is
    logged, and the others are.  Raises TickUnderWay and ClocksDiffer.
    """
    clock.require_agreement()
    with only_one("the meter") as mine:
        if not mine:
            raise TickUnderWay
        now = now or clock.now()
        due = Meter.objects.filter(next_at__lte=now)
        accounts = sorted(set(due.values_list("server__account_id", flat=True)))
        for account_id in accounts:
            try:
                _charge(account_id, due.filter(server__account_id=account_id), now)
                then(account_id)
            except Exception:
                log.exception("account %s could not be charged, or not be settled", account_id)
        return accounts


def costs(began_at: datetime, rates: Sequence[Rate], first: datetime, last: datetime) -> Iterator[Cost]:
    """What the hours that begin from ``first`` to ``last`` cost, by a server's rates (``rates_for`` them)."""
    hour = first_hour_from(month_of(first), began_at)
    month, limits, current = None, dict[CreditEntry.Kind, _Month](), 0
    while hour <= last:
        if (hour.year, hour.month) != month:
            month, limits = (hour.year, hour.month), {Kind.USAGE: _Month(), Kind.BACKUPS: _Month()}
        while current + 1 < len(rates) and rates[current + 1].since <= hour:
            current += 1
        price = rates[current].price
        amounts = {
            Kind.USAGE: limits[Kind.USAGE].take(price.price_hourly, price.price_monthly),
            Kind.BACKUPS: limits[Kind.BACKUPS].take(price.backups_hourly, price.backups_monthly),
        }
        if hour >= first:
            yield from (Cost(hour, kind, amount) for kind, amount in amounts.items() if amount)
        hour += HOUR


class _Month:
    """What a month has cost so far, and the most that it may."""

    def __init__(self) -> None:
        self.spent = self.most = Decimal(0)

    def take(self, hourly: Decimal, monthly: Decimal) -> Decimal:
        self.most = max(self.most, monthly)
        amount = min(hourly, self.most - self.spent)
        self.spent += amount
        return amount


def _charge(account_id: int, due: QuerySet[Meter], now: datetime) -> None:
    """Charge an account; if that fails, its servers one by one, for most are not to blame."""
    try:
        while _charge_some(account_id, due, now):
            pass
        return
    except Exception as error:
        log.warning("account %s is charged server by server: %r", account_id, error)
    for server_id in due.values_list("server_id", flat=True):
        try:
            while _charge_some(account_id, due.filter(server_id=server_id), now):
                pass
        except Exception:
            log.exception("server %s could not be charged", server_id)


@transaction.atomic
def _charge_some(account_id: int, due: QuerySet[Meter], now: datetime) -> bool:
    """Charge a batch of an account's hours.  False: nothing was due.

    The order of locks is account, then meters: who changes a rate waits for us, and
    we for them, so that a rate is never older than an hour charged without it.
    """
    account = ledger.locked(Account(pk=account_id))
    meters = list(
        due.select_related("server").select_for_update(of=("self",)).order_by("next_at")[:METERS_AT_ONCE]
    )
    charges = [charge for one in meters for charge in _read(one, now)]
    ledger.charge(account, _not_yet_charged(charges))
    Meter.objects.bulk_update(meters, ["next_at"])
    return bool(meters)


def _read(one: Meter, now: datetime) -> list[ledger.Charge]:
    """The charges of the next hours of one meter, which moves on.

    One that was set back by hand may stand anywhere: the hours are counted from ``began_at``.
    """
    assert one.next_at is not None  # noqa: S101  (only those are due)
    first = hour_of(one.next_at, one.began_at)
    last = min(now, first + (HOURS_AT_ONCE - 1) * HOUR)
    found = [
        ledger.Charge(
            server_id=one.server_id,
            hour=cost.hour,
            kind=cost.kind,
            amount=cost.amount,
            reason=f"{one.server.name}: {'backups' if cost.kind == Kind.BACKUPS else 'an hour'}",
        )
        for cost in costs(one.began_at, rates_for(one.server_id, first, last), first, last)
    ]
    following = first_hour_from(last + MOMENT, one.began_at)
    later = Rate.objects.filter(server_id=one.server_id, since__gt=following)
    is_over = one.server.deleted_at is not None and not later.exists()
    one.next_at = None if is_over else following
    return found


def _not_yet_charged(charges: list[ledger.Charge]) -> list[ledger.Charge]:
    """The ledger is the truth: a meter that was set back charges nothing again."""
    lines = CreditEntry.objects.filter(
        server_id__in={charge.server_id for charge in charges}, hour__in={charge.hour for charge in charges}
    )
    known = set(lines.values_list("server_id", "hour", "kind"))
    return [charge for charge in charges if (charge.server_id, charge.hour, charge.kind) not in known]
