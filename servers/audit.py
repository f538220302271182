"""Counts everything again and says what does not add up, with codes that never change."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import CharField, Exists, F, OuterRef, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Cast, Concat

from accounts.models import Account, CreditEntry
from servers.metering import costs
from servers.models import Meter, Rate, Server
from servers.rates import HOUR
from vpsorg import clock

LATE = timedelta(hours=2)
CHARGES = [CreditEntry.Kind.USAGE, CreditEntry.Kind.BACKUPS]


class Finding(NamedTuple):
    code: str
    about: str
    what: str

    def __str__(self) -> str:
        return f"{self.code} {self.about}: {self.what}"


def findings() -> Iterator[Finding]:
    """Balances against the sums of their lines, and charges against what the rates say.

    ``balance_differs``, ``charge_missing``, ``charge_unfounded``, ``charge_differs``,
    ``charge_of_stranger``, ``metering_late``.
    """
    yield from _balances()
    for meter_id in Meter.objects.order_by("server_id").values_list("pk", flat=True):
        yield from _charges(meter_id)
    yield from _strangers()
    yield from _late(clock.now())


def _balances() -> Iterator[Finding]:
    accounts = Account.objects.annotate(sum=Sum("credit_entries__amount", default=Decimal(0)))
    for account in accounts.exclude(balance=F("sum")).order_by("pk"):
        yield Finding(
            "balance_differs", f"account {account.email}", f"{account.balance}, its lines {account.sum}"
        )


@transaction.atomic
def _charges(meter_id: int) -> list[Finding]:
    """What of one server's lines is not what its rates say.  The meter waits meanwhile."""
    one = Meter.objects.select_for_update().get(pk=meter_id)
    rates = list(Rate.objects.filter(server_id=one.server_id).order_by("since"))
    until = one.next_at - HOUR if one.next_at else rates[-1].since
    due: dict[Any, Decimal] = {
        (cost.hour, cost.kind.value): cost.amount for cost in costs(one.began_at, rates, one.began_at, until)
    }
    lines = {(line.hour, line.kind): line for line in _lines().filter(server_id=one.server_id)}
    found = []
    for key in sorted({*due, *lines}):
        wanted, line = due.get(key, Decimal(0)), lines.get(key)
        made = _paid(line) if line else Decimal(0)
        if wanted != made:
            code = "charge_missing" if not line else "charge_differs" if wanted else "charge_unfounded"
            what = f"{key[1]} of {key[0]:%Y-%m-%d %H:%M:%S} is {made}, should be {wanted}"
            number = f" (line {line.pk})" if line else ""
            found.append(Finding(code, f"server {one.server_id}", what + number))
    return found


def _strangers() -> Iterator[Finding]:
    """Charges for what has no meter, or for somebody else's server."""
    theirs = Server.objects.filter(pk=OuterRef("server_id"), account=OuterRef("account"), meter__isnull=False)
    for line in _lines().exclude(Exists(theirs)).select_related("account").order_by("pk"):
        if _paid(line):
            what = f"pays {_paid(line)} for server {line.server_id} (line {line.pk})"
            yield Finding("charge_of_stranger", f"account {line.account}", what)


def _lines() -> QuerySet[Any]:
    """All charges, each with what was put right by lines whose reference is ``line <its number>``."""
    later = CreditEntry.objects.filter(
        account=OuterRef("account"),
        kind__in=[CreditEntry.Kind.REFUND, CreditEntry.Kind.CORRECTION],
        reference=Concat(Value("line "), Cast(OuterRef("pk"), CharField())),
    ).values("reference")
    put_right = Subquery(later.annotate(sum=Sum("amount")).values("sum"))
    return CreditEntry.objects.filter(kind__in=CHARGES).annotate(put_right=put_right)


def _paid(line: Any) -> Decimal:
    paid: Decimal = -(line.amount + (line.put_right or 0))
    return paid


def _late(now: datetime) -> Iterator[Finding]:
    for one in Meter.objects.filter(next_at__lt=now - LATE).order_by("server_id"):
        yield Finding(
            "metering_late", f"server {one.server_id}", f"not charged since {one.next_at:%Y-%m-%d %H:%M}"
        )
