"""Counts everything again and says what does not add up, with codes that never change."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Sum

from accounts.models import Account, CreditEntry
from servers.metering import costs
from servers.models import Meter, Rate, Server
from servers.prices import FREE, Price
from servers.rates import HOUR, MOMENT, month_of, price_now, rates_for
from vpsorg import clock

LATE = timedelta(hours=2)
CHARGES = CreditEntry.objects.filter(kind__in=[CreditEntry.Kind.USAGE, CreditEntry.Kind.BACKUPS])
PutRight = dict[tuple[int, str], Decimal]


class Finding(NamedTuple):
    code: str
    about: str
    what: str

    def __str__(self) -> str:
        return f"{self.code} {self.about}: {self.what}"


def findings() -> Iterator[Finding]:
    """Balances against the sums of their lines, charges against rates, rates against what servers cost now.

    ``balance_differs``, ``charge_missing``, ``charge_unfounded``, ``charge_differs``,
    ``charge_of_stranger``, ``meter_missing``, ``meter_stopped``, ``rate_differs``,
    ``metering_late``.
    """
    yield from _balances()
    yield from _unmetered()
    yield from _rates()
    put_right = _put_right()
    with_rates = Meter.objects.filter(Exists(Rate.objects.filter(server=OuterRef("server"))))
    for server_id in with_rates.order_by("server_id").values_list("server_id", flat=True):
        yield from _charges(server_id, put_right)
    yield from _strangers(put_right)
    yield from _late(clock.now())


def _balances() -> Iterator[Finding]:
    accounts = Account.objects.annotate(sum=Sum("credit_entries__amount", default=Decimal(0)))
    for account in accounts.exclude(balance=F("sum")).order_by("pk"):
        yield Finding(
            "balance_differs", f"account {account.email}", f"{account.balance}, its lines {account.sum}"
        )


def _unmetered() -> Iterator[Finding]:
    has_rate = Exists(Rate.objects.filter(server=OuterRef("pk")))
    for server in Server.objects.exclude(has_rate, meter__isnull=False).order_by("pk").iterator():
        if price_now(server) != FREE:
            what = f"is {server.status}, costs {price_now(server).hourly} an hour, and is not metered"
            yield Finding("meter_missing", f"server {server.pk}", what)
    stopped = Meter.objects.filter(next_at=None, server__deleted_at=None)
    for one in stopped.order_by("server_id"):
        yield Finding("meter_stopped", f"server {one.server_id}", "is there, and not charged any more")


def _rates() -> Iterator[Finding]:
    """Whatever is under way: a rate is written in the transaction that changes what a server costs."""
    newest = Rate.objects.order_by("server_id", "-since").distinct("server_id").select_related("server")
    for rate in newest.iterator():
        now = price_now(rate.server)
        if rate.price != now:
            what = f"costs {_told(now)}, its rate says {_told(rate.price)}"
            yield Finding("rate_differs", f"server {rate.server_id}", what)


def _told(price: Price) -> str:
    return ", ".join(f"{field} {amount}" for field, amount in price._asdict().items())


def _charges(server_id: int, put_right: PutRight) -> Iterator[Finding]:
    """What of one server's lines is not what its rates say, month by month."""
    one = Meter.objects.get(server_id=server_id)
    lines = CHARGES.filter(server_id=server_id)
    months = set(lines.datetimes("hour", "month", tzinfo=UTC))
    month, until = month_of(one.began_at), _counted_until(one)
    while month <= until:
        months.add(month)
        month = _month_after(month)
    for month in sorted(months):
        yield from _charges_of_month(server_id, month, put_right)


@transaction.atomic
def _charges_of_month(server_id: int, month: datetime, put_right: PutRight) -> list[Finding]:
    """The meter waits meanwhile."""
    one = Meter.objects.select_for_update().get(server_id=server_id)
    end = _month_after(month) - MOMENT
    until = min(end, _counted_until(one))
    rates = rates_for(server_id, month, until)
    due: dict[Any, Decimal] = {
        (cost.hour, cost.kind.value): cost.amount for cost in costs(one.began_at, rates, month, until)
    }
    of_month = CHARGES.filter(server_id=server_id, hour__gte=month, hour__lte=end)
    lines = {(line.hour, line.kind): line for line in of_month}
    found = []
    for key in sorted({*due, *lines}):
        wanted, line = due.get(key, Decimal(0)), lines.get(key)
        if not line and one.next_at and key[0] >= one.next_at:
            continue  # the meter has not come to it yet, or comes again
        paid = _paid(line, put_right) if line else Decimal(0)
        if wanted != paid:
            code = "charge_missing" if not line else "charge_differs" if wanted else "charge_unfounded"
            what = f"{key[1]} of {key[0].isoformat()} is {paid}, should be {wanted}"
            number = f" (line {line.pk})" if line else ""
            found.append(Finding(code, f"server {server_id}", what + number))
    return found


def _counted_until(one: Meter) -> datetime:
    """Until when its rates say what there is.  Where the clock went back, hours to come are charged."""
    if one.next_at is not None:
        return max(clock.now(), one.next_at - HOUR)
    last = Rate.objects.filter(server_id=one.server_id).latest("since")
    return last.since if last.price == FREE else clock.now()


def _month_after(month: datetime) -> datetime:
    return month_of(month + timedelta(days=31))


def _strangers(put_right: PutRight) -> Iterator[Finding]:
    """Charges for what has no meter, or for somebody else's server."""
    theirs = Server.objects.filter(pk=OuterRef("server_id"), account=OuterRef("account"), meter__isnull=False)
    for line in CHARGES.exclude(Exists(theirs)).select_related("account").order_by("pk"):
        if paid := _paid(line, put_right):
            what = f"pays {paid} for server {line.server_id} (line {line.pk})"
            yield Finding("charge_of_stranger", f"account {line.account}", what)


def _put_right() -> PutRight:
    """What refunds and corrections whose reference is ``line <its number>`` did for that line."""
    kinds = [CreditEntry.Kind.REFUND, CreditEntry.Kind.CORRECTION]
    later = CreditEntry.objects.filter(kind__in=kinds, reference__startswith="line ")
    return {
        (account_id, reference): amount
        for account_id, reference, amount in later.order_by()
        .values_list("account_id", "reference")
        .annotate(Sum("amount"))
    }


def _paid(line: CreditEntry, put_right: PutRight) -> Decimal:
    return -(line.amount + put_right.get((line.account_id, f"line {line.pk}"), Decimal(0)))


def _late(now: datetime) -> Iterator[Finding]:
    for one in Meter.objects.filter(next_at__lt=now - LATE).order_by("server_id"):
        yield Finding(
            "metering_late", f"server {one.server_id}", f"not charged since {one.next_at:%Y-%m-%d %H:%M}"
        )
